//! Which system calls are of interest: the tables `calls` and `wakers` of `programs/tracer_maps.h`.

use libc::c_long;
use wirespan_event::Call;

use super::Groups;

/// System calls have numbers below this.
pub(super) const SYSCALLS_MAX: usize = 512;
/// `CALL_WAIT`.
const WAIT: u8 = 16;
/// `CALL_RING`.
const RING: u8 = 17;
/// `CALL_CLOSE_RANGE`.
const CLOSE_RANGE: u8 = 18;
/// `CALL_DUP`.
const DUP: u8 = 19;

pub(super) type Table = [u8; SYSCALLS_MAX];

const DATA: [(c_long, Call); 14] = [
    (libc::SYS_read, Call::Read),
    (libc::SYS_readv, Call::Readv),
    (libc::SYS_preadv2, Call::Readv),
    (libc::SYS_recvfrom, Call::RecvFrom),
    (libc::SYS_recvmsg, Call::RecvMsg),
    (libc::SYS_recvmmsg, Call::RecvMmsg),
    (libc::SYS_write, Call::Write),
    (libc::SYS_writev, Call::Writev),
    (libc::SYS_pwritev2, Call::Writev),
    (libc::SYS_sendto, Call::SendTo),
    (libc::SYS_sendmsg, Call::SendMsg),
    (libc::SYS_sendmmsg, Call::SendMmsg),
    (libc::SYS_sendfile, Call::SendFile),
    (libc::SYS_splice, Call::Splice),
];

const CONNECTIONS: [(c_long, Call); 4] = [
    (libc::SYS_connect, Call::Connect),
    (libc::SYS_accept, Call::Accept),
    (libc::SYS_accept4, Call::Accept),
    (libc::SYS_close, Call::Close),
];

/// Calls that close other descriptors than `close`.
const CLOSES: &[(c_long, u8)] = &[
    (libc::SYS_close_range, CLOSE_RANGE),
    (libc::SYS_dup3, DUP),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_dup2, DUP),
];

const RINGS: [c_long; 2] = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter];

const WAITS: &[c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_io_uring_enter,
];

/// Locks and queues wake by futex; event loops by a write to an eventfd or a pipe.
const WAKERS: [c_long; 3] = [libc::SYS_futex, libc::SYS_write, libc::SYS_writev];

/// What each system call is for the program.
pub(super) fn calls(groups: &Groups) -> Table {
    let mut table = [0; SYSCALLS_MAX];
    if groups.data {
        fill(&mut table, DATA.map(|(number, call)| (number, call as u8)));
    }
    if groups.connections {
        fill(&mut table, CONNECTIONS.map(|(number, call)| (number, call as u8)));
        fill(&mut table, CLOSES.iter().copied());
    }
    if groups.turns {
        fill(&mut table, WAITS.iter().map(|&number| (number, WAIT)));
    }
    if groups.lengths {
        fill(&mut table, RINGS.map(|number| (number, RING)));
    }
    table
}

/// In which system calls threads wake others on purpose.
pub(super) fn wakers() -> Table {
    let mut table = [0; SYSCALLS_MAX];
    fill(&mut table, WAKERS.map(|number| (number, 1)));
    table
}

fn fill(table: &mut Table, values: impl IntoIterator<Item = (c_long, u8)>) {
    for (number, value) in values {
        if let Some(place) = usize::try_from(number).ok().and_then(|number| table.get_mut(number)) {
            *place = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_switches_its_own_calls() {
        let none = Groups::NONE;
        let count = |groups: Groups| calls(&groups).iter().filter(|&&call| call != 0).count();
        assert_eq!(count(none), 0);
        assert_eq!(count(Groups { data: true, ..none }), DATA.len());
        assert_eq!(count(Groups { connections: true, ..none }), CONNECTIONS.len() + CLOSES.len());
        assert_eq!(count(Groups { lengths: true, ..none }), RINGS.len());
        assert_eq!(count(Groups { turns: true, ..none }), WAITS.len());
        assert_eq!(calls(&Groups::default())[libc::SYS_sendmmsg as usize], Call::SendMmsg as u8);
        assert_eq!(wakers().iter().filter(|&&waker| waker != 0).count(), WAKERS.len());
    }
}
