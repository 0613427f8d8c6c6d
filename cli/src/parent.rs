//! A child process never outlives its parent: the kernel kills it when the parent dies.

use anyhow::{bail, Context, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

/// Ties this process to the life of `parent`; `command` is what people should run instead of this.
///
/// The kernel kills a child when the *thread* that started it ends, so children are to be started
/// from the main thread.
pub fn tie_to(parent: i32, command: &str) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("cannot tie this process to its parent")?;
    // The parent may have died before the line above; then the kernel sends nothing any more.
    if getppid().as_raw() != parent {
        bail!("the parent process {parent} is gone; run `{command}` instead");
    }
    Ok(())
}
