//! Processes that are killed and stopped, at every named point and at any instant.
//!
//! Every `step!` of the sources is a kill point. For each of them, in each scenario that passes it,
//! a process is killed exactly there, and in another run stopped there; survivors must go on,
//! receive every committed message once and whole, and find nothing left over. Run as `cargo test
//! --features kill-points --test kill`.

#[path = "kill/canary.rs"]
mod canary;
#[path = "kill/cell.rs"]
mod cell;
#[path = "kill/channel.rs"]
mod channel;
#[path = "kill/content.rs"]
mod content;
#[path = "kill/figures.rs"]
mod figures;
#[path = "kill/jobs.rs"]
mod jobs;
#[path = "kill/log.rs"]
mod log;
#[path = "kill/log_matrix.rs"]
mod log_matrix;
#[path = "kill/log_random.rs"]
mod log_random;
#[path = "kill/matrix.rs"]
mod matrix;
#[path = "kill/place.rs"]
mod place;
#[path = "kill/points.rs"]
mod points;
#[path = "kill/process.rs"]
mod process;
#[path = "kill/queue.rs"]
mod queue;
#[path = "kill/random.rs"]
mod random;
#[path = "kill/role.rs"]
mod role;
#[path = "kill/scenario.rs"]
mod scenario;
#[path = "kill/service.rs"]
mod service;
#[path = "kill/survivors.rs"]
mod survivors;
#[path = "kill/tokens.rs"]
mod tokens;

use std::sync::{Mutex, PoisonError};

/// One test at a time measures.
static ALONE: Mutex<()> = Mutex::new(());

/// Not a test: what this binary does when it was started to play a role.
#[test]
fn role() {
    if let Ok(role) = std::env::var(process::ROLE) {
        role::play(&role);
    }
}

#[test]
fn whoever_is_killed_or_stopped_at_any_point_holds_nobody_up() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    matrix::run();
}

#[test]
fn whoever_is_killed_at_any_instant_leaves_nothing_and_takes_nothing() -> windlass::Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    random::run()
}

#[test]
fn whoever_is_killed_or_stopped_at_a_durable_topic_loses_nothing_and_holds_nobody_up() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    log_matrix::run().expect("the survivors meet no error");
}

#[test]
fn whoever_is_killed_at_any_instant_at_a_durable_topic_takes_nothing_with_them() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    log_random::run().expect("the survivors meet no error");
}

#[test]
fn whoever_is_killed_or_stopped_at_a_queue_of_tokens_holds_nobody_up() -> windlass::Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    tokens::run()
}

#[test]
fn whoever_is_killed_or_stopped_at_a_queue_loses_nothing_and_holds_nobody_up() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    queue::run().expect("the survivors meet no error");
}

#[test]
fn whoever_is_killed_at_any_instant_at_a_queue_loses_and_doubles_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    jobs::run().expect("the survivors meet no error");
}

#[test]
fn whoever_is_killed_or_stopped_at_a_service_holds_nobody_up_and_leaves_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    service::run().expect("the survivors meet no error");
}

#[test]
fn whoever_is_killed_or_stopped_at_a_channel_loses_nothing_and_is_succeeded() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    channel::run();
}
