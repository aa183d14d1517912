//! The guard against loads that follow its steps, as real ones do.

use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits { cpu_cores: 0.2, memory_bytes: 512 << 20 };
const SECOND: Duration = Duration::from_secs(1);

fn load(cores: f64) -> Load {
    Load {
        elapsed: SECOND,
        agent_cores: cores * 0.7,
        program_cores: cores * 0.3,
        memory_bytes: 100 << 20,
        idle: Some(0.5),
        waiting: Some(0.0),
    }
}

/// What tracing costs at a level when everything would cost `full` cores.
fn cost(level: Level, full: f64) -> f64 {
    full * [1.0, 0.4, 0.06, 0.0][level as usize]
}

/// Levels after each second.
fn run(guard: &mut Guard, seconds: usize, full: f64) -> Vec<Level> {
    (0..seconds)
        .map(|_| {
            guard.sample(&load(cost(guard.level(), full)));
            guard.level()
        })
        .collect()
}

#[test]
fn a_short_peak_is_no_reason() {
    let mut guard = Guard::new(LIMITS);
    for cores in [0.3, 0.3, 0.1, 0.3, 0.3, 0.1] {
        assert_eq!(guard.sample(&load(cores)), None);
    }
    assert_eq!(guard.sample(&load(0.3)), None);
    assert_eq!(guard.sample(&load(0.3)), None);
    let step = guard.sample(&load(0.3)).unwrap();
    assert_eq!((step.level, step.cause), (Level::NoPayload, Some(Cause::Cpu)));
    assert_eq!(step.to_string(), "payload is left out: the tracer took 0.30 cores, and its limit is 0.20");
}

#[test]
fn much_too_much_is_ended_at_once() {
    let mut guard = Guard::new(LIMITS);
    let levels = run(&mut guard, 4, 3.0);
    assert_eq!(levels, [Level::NoPayload, Level::Sampled, Level::Sampled, Level::Sampled]);
    let memory = Load { memory_bytes: 600 << 20, ..load(0.0) };
    let step = guard.sample(&memory).unwrap();
    assert_eq!((step.level, step.cause), (Level::Off, Some(Cause::Memory)));
    assert_eq!(guard.sample(&memory), None, "there is nothing below off");
}

#[test]
fn a_busy_host_leaves_less() {
    let busy = Load { idle: Some(0.01), waiting: Some(0.6), ..load(0.15) };
    let mut guard = Guard::new(LIMITS);
    let steps: Vec<_> = (0..3).filter_map(|_| guard.sample(&busy)).collect();
    assert_eq!(steps.len(), 1);
    assert!(steps[0].to_string().contains("no idle CPU"), "{}", steps[0]);
    // As many tasks as CPUs, and none waits.
    let full = Load { idle: Some(0.0), waiting: Some(0.0), ..load(0.15) };
    let mut guard = Guard::new(LIMITS);
    assert!((0..20).all(|_| guard.sample(&full).is_none()));
}

#[test]
fn a_step_up_that_cannot_be_taken_is_tried_more_rarely() {
    let mut guard = Guard::new(LIMITS);
    let memory = Load { memory_bytes: 600 << 20, ..load(0.0) };
    while guard.sample(&memory).is_some() {}
    assert_eq!(guard.level(), Level::Off);
    let mut tried = Vec::new();
    for second in 1..=70 {
        if guard.sample(&load(0.0)).is_some() {
            guard.take_back();
            assert_eq!((guard.level(), guard.ups()), (Level::Off, 0));
            tried.push(second);
        }
    }
    assert_eq!(tried, [10, 30, 70]);
}

#[test]
fn what_ended_is_taken_up_again() {
    let mut guard = Guard::new(LIMITS);
    run(&mut guard, 60, 10.0);
    assert!(guard.level() >= Level::Sampled);
    let levels = run(&mut guard, 700, 0.05);
    assert_eq!(levels.last(), Some(&Level::Full));
    let steps: u64 = guard.downs().map(|(_, count)| count).sum();
    assert_eq!(steps, guard.ups());
}

#[test]
fn a_load_that_stays_is_tried_ever_more_rarely() {
    // Payload costs too much, and without it there is calm: the guard cannot know before it tries.
    let mut guard = Guard::new(LIMITS);
    let levels = run(&mut guard, 3600, 0.25);
    let full = levels.iter().filter(|level| **level == Level::Full).count();
    assert!(full <= 60, "{full} s of an hour beyond the limit");
    assert!((3..20).contains(&guard.ups()), "{} times up", guard.ups());
    assert!(levels.iter().all(|level| *level <= Level::NoPayload));
}

proptest! {
    #[test]
    fn it_steps_by_one_and_counts_its_steps(
        loads in prop::collection::vec((0.0..1.0, 0u64..700, 0.0..0.2, prop::option::of(0.0..1.0)), 1..400)
    ) {
        let mut guard = Guard::new(LIMITS);
        let mut seconds_since_up = usize::MAX;
        for (cores, mebibytes, idle, waiting) in loads {
            let before = guard.level();
            let sample = Load { memory_bytes: mebibytes << 20, idle: Some(idle), waiting, ..load(cores) };
            let step = guard.sample(&sample);
            let moved = guard.level() as i32 - before as i32;
            prop_assert_eq!(step.map_or(0, |step| if step.cause.is_some() { 1 } else { -1 }), moved);
            seconds_since_up = seconds_since_up.saturating_add(1);
            if moved < 0 {
                prop_assert!(seconds_since_up >= CALM_MIN.as_secs() as usize);
                seconds_since_up = 0;
            }
            let downs: u64 = guard.downs().map(|(_, count)| count).sum();
            prop_assert_eq!(downs, guard.ups() + guard.level() as u64);
        }
    }

    /// Whatever load stays, the tracer soon keeps to its limit for almost all of the time.
    #[test]
    fn limits_are_kept(full in 0.0..20.0) {
        let mut guard = Guard::new(LIMITS);
        run(&mut guard, 60, full);
        let levels = run(&mut guard, 3600, full);
        let beyond = levels.iter().filter(|level| cost(**level, full) > LIMITS.cpu_cores).count();
        prop_assert!(beyond <= 60, "{} s of an hour", beyond);
        let mean = levels.iter().map(|level| cost(*level, full)).sum::<f64>() / levels.len() as f64;
        prop_assert!(mean <= LIMITS.cpu_cores * 1.1, "{} cores", mean);
    }
}
