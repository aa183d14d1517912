//! Opening an interface: the program, and a socket for each queue.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use wirespan_bpf::xdp::{self, Counters, FilterMap, QUEUES_MAX, ShuntMap, XdpOptions, XdpProgram};
use wirespan_frame::{Filter, LinkType};

use super::busy_poll::{self, Effect};
use super::clock::{Clock, NicClock};
use super::socket::{self, Socket, umem_bytes};
use super::spare::{SPARE_AREA_BYTES, Spares};
use super::{AfXdp, BATCH_FRAMES, FRAME_CAPACITY, Mode, Options};
use crate::interface::Interface;
use crate::sys::{self, HUGE_PAGE_BYTES, Pages};
use crate::{CaptureError, Note};

/// What the sources of one interface have in common; the last one that goes detaches the program.
pub(super) struct Attachment {
    program: XdpProgram,
    filter: Option<Mutex<FilterMap>>,
    /// The interface is promiscuous as long as this socket is open.
    _promiscuous: Option<OwnedFd>,
}

impl Attachment {
    pub fn mode(&self) -> xdp::Mode {
        self.program.mode()
    }

    pub fn shunt(&self) -> Option<ShuntMap> {
        self.program.shunt()
    }

    /// False when the program has no filter.
    pub fn set_filter(&self, filter: &Filter) -> Result<bool, CaptureError> {
        let Some(map) = &self.filter else { return Ok(false) };
        map.lock().unwrap_or_else(PoisonError::into_inner).set(filter)?;
        Ok(true)
    }

    pub fn counters(&self) -> Result<Counters, CaptureError> {
        Ok(self.program.counters()?)
    }
}

/// Opens all queues of an interface.
pub(super) fn open(interface: &str, options: &Options) -> Result<Vec<AfXdp>, CaptureError> {
    let interface = Interface::find(interface)?;
    if interface.link_type() != LinkType::Ethernet {
        return Err(CaptureError::NotEthernet { interface: interface.name });
    }
    let mut notes = Vec::new();
    // Drivers set their queues up anew for a program, and may add some, so it comes before the sockets.
    let program_options = XdpOptions {
        generic: options.first_mode == Mode::Generic,
        frags: socket::knows_multi_buffer(),
        ..options.program.clone()
    };
    let queues_before = interface.rx_queues();
    let mut program = XdpProgram::attach(&interface.name, &program_options)?;
    let promiscuous = options.promiscuous.then(|| interface.hold_promiscuous()).transpose()?;
    let mut try_zero_copy = program.mode() == xdp::Mode::Native && options.first_mode == Mode::ZeroCopy;
    let queues = interface.rx_queues();
    if try_zero_copy && queues != queues_before {
        // The kernel takes zero-copy sockets down some time after they were closed. virtio_net, whose added queues are gone by then
        // with the program, keeps theirs, and the kernel crashes when it sets those queues up again.
        try_zero_copy = false;
        notes.push(Note::NoZeroCopy {
            interface: interface.name.clone(),
            reason: format!("its driver makes {queues} queues of {queues_before} for the XDP program"),
        });
    }
    let queues = queues.min(QUEUES_MAX);
    let mut sockets = Vec::new();
    for queue in 0..queues {
        let socket = Socket::open(&interface, queue, options, try_zero_copy)?;
        program.set_socket(queue, &socket.fd())?;
        if options.busy_poll
            && let Err(error) = busy_poll::prefer(socket.fd())
        {
            let reason = error.to_string();
            notes.push(Note::NoBusyPoll { interface: interface.name.clone(), reason });
        }
        notes.extend(fallbacks(&socket, program.frags(), &interface, queues, options));
        sockets.push(socket);
    }
    notes.extend(program.fallbacks().iter().cloned().map(Note::Program));
    // All queues of an interface are alike.
    let mut seen = HashSet::new();
    notes.retain(|note| matches!(note, Note::Program(_)) || seen.insert(std::mem::discriminant(note)));
    let filter = program.take_filter().map(Mutex::new);
    let attachment = Arc::new(Attachment { program, filter, _promiscuous: promiscuous });
    let source = |(queue, socket): (u32, Socket)| AfXdp {
        spares: Spares::new(umem_bytes(socket.frames)),
        socket,
        attachment: Arc::clone(&attachment),
        interface: interface.clone(),
        queue,
        clock: Clock::new(),
        nic_clock: NicClock::default(),
        descriptors: Vec::with_capacity(BATCH_FRAMES),
        busy_poll: options.busy_poll.then(Effect::default),
        idle: true,
        received: 0,
        joined: 0,
        notes: if queue == 0 { std::mem::take(&mut notes) } else { Vec::new() },
        options: options.clone(),
    };
    Ok((0..).zip(sockets).map(source).collect())
}

/// What the driver and the machine did not give to a socket.
fn fallbacks(
    socket: &Socket,
    frags: bool,
    interface: &Interface,
    queues: u32,
    options: &Options,
) -> Vec<Note> {
    let mut notes = Vec::new();
    let interface_name = || interface.name.clone();
    if let Some(reason) = &socket.bound.zero_copy_refused {
        notes.push(Note::NoZeroCopy { interface: interface_name(), reason: reason.clone() });
    }
    if !(socket.bound.multi_buffer && frags) && interface.longest_frame() > FRAME_CAPACITY {
        notes.push(Note::NoMultiBuffer { interface: interface_name(), longest: FRAME_CAPACITY });
    }
    if options.huge_pages && socket.pages != Pages::Huge {
        let bytes = umem_bytes(socket.frames) + SPARE_AREA_BYTES;
        let needed = bytes.div_ceil(HUGE_PAGE_BYTES) as u64 * u64::from(queues);
        let (all, free) = sys::huge_pages();
        let total = all + needed.saturating_sub(free);
        let transparent = socket.pages == Pages::Transparent;
        notes.push(Note::FewHugePages { needed, free, total, transparent });
    }
    notes
}
