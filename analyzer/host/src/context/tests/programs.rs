//! Programs that are played at random: what is linked is right, also where events are missing.

use super::*;
use proptest::prelude::*;

/// What a program does next, and for whom, by a stream of random numbers.
struct Dice<'a>(std::slice::Iter<'a, u8>);

impl Dice<'_> {
    fn roll(&mut self, sides: usize) -> Option<usize> {
        self.0.next().map(|&number| usize::from(number) % sides)
    }
}

/// Client spans are numbered so that their parent is known.
const CALLS: u64 = 100;

/// A request that is worked on: its span, calls made, and whether the last of them waits for its response.
#[derive(Clone, Copy, Default)]
struct Work {
    span: u64,
    calls: u64,
    waits: bool,
}

impl Work {
    fn call(self) -> u64 {
        self.span + self.calls
    }
}

/// A step of a request on its thread or in a turn of the loop: it comes, asks, hears, or is answered.
fn step(s: &mut Script, at: Moment, slot: usize, work: &mut Work, next: &mut u64, more: bool) {
    let conn = 1 + slot as u64;
    if work.span == 0 {
        *next += CALLS;
        *work = Work { span: *next, ..Work::default() };
        s.serve(at, work.span, conn);
    }
    if work.waits {
        work.waits = false;
        s.hear(at, work.call(), 50 + conn);
    }
    let at = Moment { thread_event: at.thread_event + 500_000, ..at };
    if more {
        work.calls += 1;
        work.waits = true;
        s.ask(at, work.call(), 50 + conn);
    } else {
        s.answer(at, work.span, conn);
        *work = Work::default();
    }
}

/// Says how many are linked; fails when one is linked with another's request.
fn check(parents: &[(u64, Option<u64>)]) -> usize {
    for (client, parent) in parents {
        assert!(
            parent.is_none_or(|parent| parent == client / CALLS * CALLS),
            "{client} is not for {parent:?}"
        );
    }
    parents.iter().filter(|(_, parent)| parent.is_some()).count()
}

proptest! {
    #[test]
    fn threads_that_serve_one_connection_each(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (mut s, mut dice, mut next) = (Script::new(), Dice(bytes.iter()), 0);
        let mut work = [Work::default(); 4];
        while let (Some(slot), Some(more)) = (dice.roll(4), dice.roll(3)) {
            let at = s.at(10 + slot as u32, 0, Wait::Unknown);
            step(&mut s, at, slot, &mut work[slot], &mut next, more > 0);
        }
        let parents = s.parents();
        prop_assert_eq!(check(&parents), parents.len());
    }

    #[test]
    fn a_loop_that_takes_turns(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (mut s, mut dice, mut next, mut turn) = (Script::new(), Dice(bytes.iter()), 0, 0);
        let mut work = [Work::default(); 8];
        while let (Some(slot), Some(more), Some(wait)) = (dice.roll(8), dice.roll(3), dice.roll(2)) {
            turn += wait as u32;
            let at = s.at(10, turn, Wait::Forever);
            step(&mut s, at, slot, &mut work[slot], &mut next, more > 0);
        }
        let parents = s.parents();
        prop_assert_eq!(check(&parents), parents.len());
    }

    #[test]
    fn workers_that_take_from_a_queue(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (mut s, mut dice, mut next) = (Script::new(), Dice(bytes.iter()), 0);
        let mut queue = std::collections::VecDeque::new();
        let mut waiting = [0u64; 6];
        let mut busy = [None; 3];
        while let (Some(server), Some(worker)) = (dice.roll(6), dice.roll(3)) {
            if waiting[server] == 0 {
                next += CALLS;
                waiting[server] = next;
                let at = s.at(10 + server as u32, 0, Wait::Unknown);
                s.serve(at, next, 1 + server as u64);
                queue.push_back(server);
            }
            let (tid, conn) = (20 + worker as u32, 90 + worker as u64);
            match busy[worker].take() {
                None => {
                    let Some(server) = queue.pop_front() else { continue };
                    busy[worker] = Some(server);
                    let at = s.at(tid, 0, Wait::Unknown);
                    s.ask(at, waiting[server] + 1, conn);
                }
                Some(server) => {
                    let span = std::mem::take(&mut waiting[server]);
                    let at = s.at(tid, 0, Wait::Unknown);
                    s.hear(at, span + 1, conn);
                    let at = s.at(tid, 0, Wait::Unknown);
                    let (tid, futex) = (10 + server as u32, 0x1000 * (server as u64 + 1));
                    s.happen(at, Happening::Wake { tid, coroutine: 0, futex, timed: false });
                    let at = s.at(tid, 0, Wait::Unknown);
                    s.answer(at, span, 1 + server as u64);
                }
            }
        }
        let heard = waiting.iter().filter(|&&span| span != 0).count();
        let parents = s.parents();
        prop_assert!(check(&parents) + heard >= parents.len());
    }

    #[test]
    fn a_loop_that_loses_events(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (mut s, mut dice, mut next, mut turn) = (Script::new(), Dice(bytes.iter()), 0, 0);
        let mut work = [Work::default(); 8];
        while let (Some(slot), Some(more), Some(luck)) = (dice.roll(8), dice.roll(3), dice.roll(10)) {
            turn += u32::from(luck % 2 == 0);
            let at = s.at(10, turn, Wait::Forever);
            if luck == 7 {
                // Its next bytes are not seen, which is noticed by the gap behind them.
                s.happen(at, Happening::Lost);
                s.happen(at, Happening::Gap { conn: 1 + slot as u64 });
                if work[slot].span != 0 {
                    s.happen(at, Happening::Over { span: work[slot].span });
                }
                if work[slot].waits {
                    s.happen(at, Happening::Over { span: work[slot].call() });
                }
                work[slot] = Work::default();
            } else {
                step(&mut s, at, slot, &mut work[slot], &mut next, more > 0);
            }
        }
        check(&s.parents());
    }
}
