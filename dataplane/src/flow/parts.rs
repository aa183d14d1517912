//! Parts that only some flows have. They lie in slabs, so that they are used again by the next flow that needs one.

use super::answers::Answers;
use super::counts::Wide;
use super::reassembly::Reassembly;
use super::role::Certainty;
use super::sequence::{Holes, Keeper};
use super::slab::{NONE, Recycled, Slab};
use wirespan_l7::{FlowContext, Side, Stream};
use wirespan_records::{L7Counts, Tunnel};

/// All parts of one table's flows.
pub(super) struct Parts {
    pub wide: Slab<Wide>,
    pub extras: Slab<Extra>,
    pub payloads: Slab<Payload>,
}

impl Parts {
    pub(super) fn new() -> Self {
        Self { wide: Slab::new(), extras: Slab::new(), payloads: Slab::new() }
    }

    /// Memory in use, without what the parts keep elsewhere.
    pub(super) fn bytes(&self) -> usize {
        self.wide.bytes() + self.extras.bytes() + self.payloads.bytes()
    }

    /// The tunnel of a flow with this extra part.
    pub(super) fn tunnel(&self, extra: u32) -> Option<Tunnel> {
        if extra == NONE { None } else { self.extras[extra].tunnel }
    }
}

/// Of flows in a tunnel, or with holes in their sequence numbers.
#[derive(Default)]
pub(super) struct Extra {
    pub tunnel: Option<Tunnel>,
    holes: [Holes; 2],
    next_free: u32,
}

impl Recycled for Extra {
    fn next_free(&mut self) -> &mut u32 {
        &mut self.next_free
    }

    fn recycle(&mut self) {
        self.tunnel = None;
        self.holes.iter_mut().for_each(Holes::clear);
    }
}

/// The extra part of one flow, seen from one side, for when it is needed.
pub(super) struct ExtraOf<'a> {
    pub place: &'a mut u32,
    pub extras: &'a mut Slab<Extra>,
    pub side: Side,
}

impl ExtraOf<'_> {
    pub(super) fn get_or_take(&mut self) -> &mut Extra {
        if *self.place == NONE {
            *self.place = self.extras.take();
        }
        &mut self.extras[*self.place]
    }
}

impl Keeper for ExtraOf<'_> {
    fn holes(&mut self) -> Option<&mut Holes> {
        (*self.place != NONE).then(|| &mut self.extras[*self.place].holes[self.side as usize])
    }

    fn holes_to_add(&mut self) -> &mut Holes {
        let side = self.side;
        &mut self.get_or_take().holes[side as usize]
    }
}

/// Of flows with payload that is looked at.
#[derive(Default)]
pub(super) struct Payload {
    pub stream: Stream,
    pub orders: [Reassembly; 2],
    pub answers: Answers,
    /// What the flow's spans have in common, and who the client was thought to be when it was made.
    pub context: Option<((Side, Certainty), FlowContext)>,
    /// Requests since the flow's last record (without the current second, when seconds are reported: see `seconds`).
    pub counts: L7Counts,
    /// When the wheel was told that L7 has something to do.
    pub timed_ns: Option<u64>,
    next_free: u32,
}

impl Recycled for Payload {
    fn next_free(&mut self) -> &mut u32 {
        &mut self.next_free
    }

    fn recycle(&mut self) {
        *self = Self::default();
    }
}
