use super::*;

const LIMIT: Duration = Duration::from_secs(10);

/// The bus of nobody, and a sample of the first subscriber of the first cell.
fn situation() -> (Crew, Recovery) {
    let crew = Crew::new("nowhere".into(), 1, Vec::new()).expect("memory for a board");
    let mut recovery = Recovery::new(LIMIT);
    let seat = find(&crew, |member| member.cell == 0 && member.job.is_prompt());
    recovery.open.push(Sample {
        seat,
        generation: 0,
        cell: 0,
        death: crew.board.count_death(0),
        at_ns: 0,
        killed: "publisher",
        since: Duration::ZERO,
        disturbed: false,
    });
    (crew, recovery)
}

fn find(crew: &Crew, which: impl Fn(&Member) -> bool) -> usize {
    crew.members.iter().position(which).expect("there is one")
}

fn pass(recovery: &mut Recovery, crew: &Crew, ms: u64) -> Vec<String> {
    (0..ms / 50).for_each(|_| recovery.advance(crew, LOOK_MAX));
    recovery.look(crew).expect("it looks")
}

fn stop(crew: &mut Crew, seat: usize, whether: bool) {
    crew.members[seat].stopped_until = whether.then(Instant::now);
}

/// What was not measured was seen: how many, and how long the longest took.
fn dropped(recovery: &Recovery) -> (u64, u128) {
    (recovery.dropped, recovery.dropped_oldest.as_millis())
}

#[test]
fn answer_ends_a_sample() {
    let (crew, mut recovery) = situation();
    assert_eq!(pass(&mut recovery, &crew, 9_000), [""; 0]);
    let seat = recovery.open[0].seat;
    crew.board.set(seat, Word::AnsweredNs, 7_000_000);
    crew.board.set(seat, Word::Answered, 1);
    assert_eq!(pass(&mut recovery, &crew, 50), [""; 0]);
    assert_eq!((recovery.open.len(), recovery.times["publisher"].len()), (0, 1));
    assert_eq!(recovery.end(&crew), [""; 0]);
    assert_eq!(dropped(&recovery), (0, 0));
}

#[test]
fn standstill_is_found_before_it_ends() {
    let (crew, mut recovery) = situation();
    assert_eq!(pass(&mut recovery, &crew, 10_000), [""; 0]);
    let faults = pass(&mut recovery, &crew, 50);
    assert!(faults.len() == 1 && faults[0].contains("had nothing new for 10"), "{faults:?}");
}

#[test]
fn stop_hides_no_standstill() {
    let (mut crew, mut recovery) = situation();
    assert_eq!(pass(&mut recovery, &crew, 1_500), [""; 0]);
    stop(&mut crew, 0, true);
    assert_eq!(pass(&mut recovery, &crew, 60_000), [""; 0]);
    stop(&mut crew, 0, false);
    assert_eq!(pass(&mut recovery, &crew, 500), [""; 0]);
    let faults = pass(&mut recovery, &crew, 50);
    assert!(faults.len() == 1 && faults[0].contains("had nothing new for 2"), "{faults:?}");
    assert_eq!(dropped(&recovery), (1, 2_050));
}

#[test]
fn standstill_that_is_interrupted_by_a_stop_a_death_or_the_end_is_found() {
    type End = fn(&mut Crew, &mut Recovery) -> Vec<String>;
    let ends: [End; 4] = [
        |crew, recovery| {
            stop(crew, 0, true);
            pass(recovery, crew, 50)
        },
        |crew, recovery| {
            recovery.died(crew, recovery.open[0].seat);
            pass(recovery, crew, 0)
        },
        |crew, recovery| {
            recovery.advance(crew, 2 * AWAY);
            pass(recovery, crew, 0)
        },
        |crew, recovery| recovery.end(crew),
    ];
    for (way, end) in ends.into_iter().enumerate() {
        for (ms, count) in [(1_900, 0), (2_100, 1)] {
            let (mut crew, mut recovery) = situation();
            assert_eq!(pass(&mut recovery, &crew, ms), [""; 0]);
            assert_eq!(end(&mut crew, &mut recovery).len(), count, "{way} {ms}");
            // What may still go on is dropped once it has.
            crew.board.set(find(&crew, |one| one.job.is_prompt()), Word::Answered, 1);
            assert_eq!(pass(&mut recovery, &crew, 0), [""; 0]);
            assert_eq!((recovery.dropped, recovery.open.len()), (1, 0), "{way} {ms}");
            assert!(recovery.times.is_empty(), "{way} {ms}");
        }
    }
}

#[test]
fn only_who_could_hold_up_a_cell_disturbs_it() {
    let (mut crew, mut recovery) = situation();
    let inspector = find(&crew, |member| member.job == Job::Inspect);
    let others = [
        find(&crew, |member| member.job == Job::Churn),
        find(&crew, |member| member.cell == 1),
        inspector,
    ];
    for seat in others {
        stop(&mut crew, seat, true);
        assert_eq!(pass(&mut recovery, &crew, 100), [""; 0]);
        assert!(!recovery.open[0].disturbed, "{seat}");
    }
    assert_eq!(recovery.clocks[0], Duration::from_millis(300));
    crew.board.set(inspector, Word::Joined, 1);
    assert_eq!(pass(&mut recovery, &crew, 100), [""; 0]);
    assert!(recovery.open[0].disturbed);
    assert_eq!(recovery.clocks[0], Duration::from_millis(300));
}
