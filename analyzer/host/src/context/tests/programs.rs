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

/// A loop whose requests come together, each of which makes so many calls, which one event sends for all of them. Says what is linked.
fn together(sizes: &[usize], mut calls: impl FnMut(u64) -> u64) -> Vec<(u64, Option<u64>)> {
    let (mut s, mut next) = (Script::new(), 0);
    for (turn, size) in (1..).step_by(2).zip(sizes) {
        let spans: Vec<u64> = (1..=*size as u64).map(|n| next + n * CALLS).collect();
        next += *size as u64 * CALLS;
        for (conn, span) in spans.iter().enumerate() {
            let at = s.at(10, turn, Wait::Forever);
            s.serve(at, *span, 1 + conn as u64);
        }
        let made: Vec<u64> =
            spans.iter().flat_map(|span| (1..=calls(*span)).map(move |n| span + n)).collect();
        let at = s.at(10, turn, Wait::Forever);
        made.iter().for_each(|call| s.ask(at, *call, 50));
        let at = s.at(10, turn + 1, Wait::Forever);
        made.iter().for_each(|call| s.hear(at, *call, 50));
        for (conn, span) in spans.iter().enumerate() {
            let at = s.at(10, turn + 1, Wait::Forever);
            s.answer(at, *span, 1 + conn as u64);
        }
    }
    s.parents()
}

#[test]
fn calls_that_go_out_together_are_shared_only_where_each_request_makes_as_many() {
    let sizes = [1, 3, 2, 4, 3, 5, 2, 6, 4, 3];
    for each in 1..5 {
        let parents = together(&sizes, |_| each);
        assert_eq!(check(&parents), 33 * each as usize);
    }
    // The sums fit now and then.
    let parents = together(&sizes, |span| span / CALLS % 3);
    assert!(check(&parents) < 5, "{parents:?}");
    // They always fit, but there is nothing to tell that from: two come each time.
    let parents = together(&[2; 20], |span| 1 + span / CALLS % 2 * 2);
    assert_eq!(check(&parents), 0);
}

proptest! {
    #[test]
    fn calls_that_go_out_together(sizes in prop::collection::vec(1usize..9, 0..40), each in 1u64..5, rare in 0u64..200) {
        // A few requests make one call less: what is linked is right where those are not.
        let parents = together(&sizes, |span| each - u64::from(rare > 0 && span / CALLS % 200 == rare));
        check(&parents);
    }

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
    fn a_loop_whose_timers_ask_for_nobody(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (mut s, mut next, mut turn, mut ticks) = (Script::new(), 0, 0, 0);
        let mut work = [Work::default(); 4];
        let mut waiting = Vec::new();
        // Of a thread that never had several requests open, asking while none is open is what tells its timers.
        for byte in [4; 3].into_iter().chain(bytes.into_iter().map(usize::from)) {
            let (what, more) = (byte % 6, byte / 6 % 3);
            turn += 1;
            // Their numbers are below those of all requests.
            if what < 4 {
                let at = s.at(10, turn, Wait::Look);
                step(&mut s, at, what, &mut work[what], &mut next, more > 0);
            } else if what == 4 && ticks < CALLS - 1 {
                ticks += 1;
                let at = s.at(10, turn, Wait::Timers);
                s.ask(at, ticks, 90);
                waiting.push(ticks);
            } else if let Some(tick) = waiting.pop() {
                let at = s.at(10, turn, Wait::Look);
                s.hear(at, tick, 90);
            }
        }
        for (client, parent) in s.parents() {
            let expected = (client >= CALLS).then_some(client / CALLS * CALLS);
            prop_assert!(parent.is_none() || parent == expected, "{client} is not for {parent:?}");
        }
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
    fn workers_of_a_queue_that_is_watched(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (mut s, mut dice, mut next) = (Script::new(), Dice(bytes.iter()), 0);
        let mut queue = std::collections::VecDeque::new();
        let mut waiting = [(0u64, 0u64); 6];
        while let (Some(server), Some(worker), Some(calls)) = (dice.roll(6), dice.roll(3), dice.roll(4)) {
            let giver = 10 + server as u32;
            if waiting[server].0 == 0 {
                next += CALLS;
                waiting[server] = (next, 0);
                let at = s.at(giver, 0, Wait::Unknown);
                s.serve(at, next, 1 + server as u64);
                for call in 1..=calls as u64 {
                    let at = s.at(giver, 0, Wait::Unknown);
                    s.happen(at, Happening::Put { item: 0x1000 + next + call });
                    queue.push_back((server, next + call));
                    waiting[server].1 += 1;
                }
            }
            if let Some((server, call)) = queue.pop_front() {
                let (tid, conn) = (20 + worker as u32, 90 + worker as u64);
                let at = s.at(tid, 0, Wait::Unknown);
                s.happen(at, Happening::Take { item: 0x1000 + call });
                let at = s.at(tid, 0, Wait::Unknown);
                s.ask(at, call, conn);
                let at = s.at(tid, 0, Wait::Unknown);
                s.hear(at, call, conn);
                waiting[server].1 -= 1;
            }
            // Who is done finds all answers there, and waits for none.
            for (server, (span, calls)) in waiting.iter_mut().enumerate() {
                if *span != 0 && *calls == 0 {
                    let at = s.at(10 + server as u32, 0, Wait::Unknown);
                    s.answer(at, std::mem::take(span), 1 + server as u64);
                }
            }
        }
        let parents = s.parents();
        prop_assert_eq!(check(&parents), parents.len());
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
