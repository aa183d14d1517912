//! `Header` is `struct event`, as the object's own type information has it.

use std::collections::HashMap;
use std::mem::offset_of;

use wirespan_event::Header;

use super::super::object::OBJECT;

macro_rules! offsets {
    ($($field:ident $(as $c:literal)?),* $(,)?) => {
        vec![$((offsets!(@name $field $($c)?), offset_of!(Header, $field))),*]
    };
    (@name $field:ident $c:literal) => { $c };
    (@name $field:ident) => { stringify!($field) };
}

#[test]
fn every_field_is_where_the_kernel_puts_it() {
    let rust = offsets![
        size, kind, source, flags, enter_ns, exit_ns, tgid, tid, process_start_ns, coroutine, cgroup, conn, tls,
        turn, thread_event, conn_event, tcp_seq, opposite_seq, length, captured, fd, other_tgid, other_tid, netns,
        ifindex, srtt_us, retrans, family, local_port, remote_port, protocol, tcp_state, local, remote, iov_count,
        call as "syscall",
    ];
    let (size, c) = members("event");
    assert_eq!(size, size_of::<Header>());
    assert_eq!(c.len(), rust.len());
    for (name, offset) in rust {
        assert_eq!(c.get(name), Some(&offset), "{name}");
    }
}

/// Size of a structure of the object, and the offset of each member.
fn members(structure: &str) -> (usize, HashMap<String, usize>) {
    let object = aya_obj::Object::parse(OBJECT).unwrap();
    let btf = object.btf.unwrap().to_bytes();
    let word = |at: usize| u32::from_ne_bytes(*btf[at..].first_chunk().unwrap());
    // struct btf_header: magic, version, flags, length of the header, then offsets and lengths behind it.
    let header = word(4) as usize;
    let (types, types_len, strings) =
        (header + word(8) as usize, word(12) as usize, header + word(16) as usize);
    let text = |at: u32| {
        let bytes = &btf[strings + at as usize..];
        String::from_utf8_lossy(&bytes[..bytes.iter().position(|&byte| byte == 0).unwrap()]).into_owned()
    };
    let mut at = types;
    while at < types + types_len {
        let (name, info, size) = (word(at), word(at + 4), word(at + 8));
        let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        at += 12;
        const STRUCT: u32 = 4;
        if kind == STRUCT && text(name) == structure {
            let member = |n: usize| (text(word(at + 12 * n)), word(at + 12 * n + 8) as usize / 8);
            return (size as usize, (0..count).map(member).collect());
        }
        // What follows a type of each kind, as include/uapi/linux/btf.h has it.
        at += match kind {
            1 | 14 | 17 => 4,
            3 => 12,
            4 | 5 | 15 | 19 => 12 * count,
            6 | 13 => 8 * count,
            _ => 0,
        };
    }
    panic!("the object has no struct {structure}");
}
