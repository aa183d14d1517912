//! Probes on functions of this program.

use std::hint::black_box;
use std::path::Path;

use wirespan_event::{Kind, Source};

use super::super::{GoProgram, UprobeLink};
use super::watch::{Watch, watch_with_probes};

/// As Python calls `put`: what is put is where the second argument says.
#[inline(never)]
extern "C" fn put(_queue: u64, items: &u64) -> u64 {
    black_box(*items)
}

/// As it calls `get`.
#[inline(never)]
extern "C" fn get(item: u64) -> u64 {
    black_box(item)
}

#[inline(never)]
extern "C" fn get_other(item: u64) -> u64 {
    black_box(item + 1)
}

/// Where in this program's file a function is.
fn offset_of(function: usize) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let at = function as u64;
    let offset = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ').unwrap();
        let (begin, end) = range.split_once('-').unwrap();
        let (begin, end) = (number(begin), number(end));
        let offset = rest.split(' ').nth(1).unwrap();
        (begin <= at && at < end).then(|| at - begin + number(offset))
    });
    offset.unwrap()
}

fn attach(watch: &mut Watch) -> Vec<UprobeLink> {
    let prober = watch.tracer.take_prober().unwrap();
    assert!(watch.tracer.take_prober().is_none(), "there is one");
    let program = Path::new("/proc/self/exe");
    let gets = [offset_of(get as *const () as usize), offset_of(get_other as *const () as usize)];
    let puts = [offset_of(put as *const () as usize)];
    let attach = |name, offsets: &[u64]| prober.attach(name, program, offsets, None).unwrap();
    vec![attach("python_taken", &gets), attach("python_put", &puts)]
}

/// Items that were put and taken since the last call.
fn items(watch: &mut Watch) -> Vec<(Kind, u64)> {
    watch.drain();
    let of_queue = watch.seen.drain(..).filter(|seen| seen.header.source() == Some(Source::Queue));
    of_queue.map(|seen| (seen.kind(), seen.header.tls)).collect()
}

#[test]
fn entries_and_returns_are_seen_until_the_links_are_dropped() {
    for links_of_many in [true, false] {
        let Some(mut watch) = watch_with_probes(links_of_many) else { return };
        let call = || {
            put(black_box(1), black_box(&70));
            get(black_box(80));
            get_other(black_box(90));
        };
        call();
        assert_eq!(items(&mut watch), []);
        let links = attach(&mut watch);
        assert_eq!(links.iter().map(UprobeLink::count).collect::<Vec<_>>(), [2, 1]);
        call();
        let expected = [(Kind::Fork, 70), (Kind::Wake, 80), (Kind::Wake, 91)];
        assert_eq!(items(&mut watch), expected, "links of many: {links_of_many}");
        drop(links);
        call();
        assert_eq!(items(&mut watch), []);
    }
}

#[test]
fn what_cannot_be_probed_is_an_error() {
    for links_of_many in [true, false] {
        let Some(mut watch) = watch_with_probes(links_of_many) else { return };
        let mut prober = watch.tracer.take_prober().unwrap();
        let attach = |program, file, offset| prober.attach(program, Path::new(file), &[offset], None);
        let no_program = attach("no_such_probe", "/bin/true", 0).unwrap_err().to_string();
        assert!(no_program.contains("no_such_probe"), "{no_program}");
        let no_file = attach("python_put", "/no/such/file", 0).unwrap_err().to_string();
        assert!(no_file.starts_with("cannot probe /no/such/file at offset 0x0: No such file"), "{no_file}");
        assert!(attach("python_put", "/bin/true", 1 << 40).is_err());
        // What was never set can be cleared.
        prober.set_go_program(1, None).unwrap();
        prober.set_go_program(1, Some(GoProgram { g: -8, goid: 152, self_at: 0 })).unwrap();
        prober.set_go_program(1, None).unwrap();
    }
}
