//! The programs that make traffic (`programs/generate.bpf.c`): frames that the kernel runs through XDP without a NIC.

use std::time::Duration;

use aya::maps::{Array, DevMap, MapData};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, TestRunResult, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, Pod};

use crate::BpfError;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/generate.o"));

const SETTINGS: &str = "SETTINGS";
const INTERFACE: &str = "interface";
const PACE: &str = "the_pace";
const STATE: &str = "the_state";
const SLOTS: &str = "slots";
const TEMPLATES: &str = "templates";
const RECORDING: &str = "recording";

/// Longest frame of a connection: what the kernel takes as a live frame, a page less its room at both ends.
pub const FRAME_MAX: usize = 3328;
/// Longest frame of a capture that is repeated.
pub const RECORDED_FRAME_MAX: usize = 2048;
/// Kinds of frames in a connection: SYN, SYN-ACK, ACK, the client's data, the server's data.
pub const KINDS: usize = 5;
/// Rounds after which flows are visited in the same order again.
pub const STEPS: usize = 8;

/// Frames that the kernel handles together.
const BATCH: u32 = 64;

/// What connections are made.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Connections at the same time, at least 1.
    pub flows: u32,
    /// One is replaced by a new one on each Nth frame; 0 for never.
    pub new_every: u32,
    /// Where the innermost IP header begins.
    pub ip: u32,
    /// Where the outer UDP header is; 0 where there is none.
    pub outer_udp: u32,
    /// Payload of a segment of the client and of the server.
    pub payload: [u32; 2],
    /// 1 when frames with data differ in their first 60 bytes alone, without a tunnel: all else is then written once.
    pub alike: u32,
    /// How far it is from one flow to the next, in each of the rounds; coprime to `flows` and less.
    pub steps: [u32; STEPS],
}

/// A frame whose addresses, ports, sequence numbers and checksums are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Template {
    /// Bytes of it.
    pub len: u32,
    /// Sum of the IP header's 16-bit words, as they lie in memory.
    pub ip_sum: u32,
    /// Sum of the TCP segment's and the pseudo header's words.
    pub tcp_sum: u32,
    /// The frame.
    pub bytes: [u8; FRAME_MAX],
}

/// A frame of a capture that is repeated.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Recorded {
    /// Bytes of it.
    pub len: u32,
    /// Two places where the copy's number is added, as two bytes; 0 for none.
    pub places: [u16; 2],
    /// The frame.
    pub bytes: [u8; RECORDED_FRAME_MAX],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Pace {
    interval_ns: u64,
    burst: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct State {
    frames: u64,
    bytes: u64,
    next_ns: u64,
    rest: [u32; 8],
}

// SAFETY: integers without padding, as the C structures have them.
unsafe impl Pod for Settings {}
// SAFETY: as above.
unsafe impl Pod for Template {}
// SAFETY: as above.
unsafe impl Pod for Recorded {}
// SAFETY: as above.
unsafe impl Pod for Pace {}
// SAFETY: as above.
unsafe impl Pod for State {}

/// What was sent since the generator was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames handed to the interface.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A program that is loaded, with its state.
pub struct Generator {
    ebpf: Ebpf,
    program: &'static str,
    /// What is in a frame before the program fills it; as long as the longest, as frames are cut in less time than made longer.
    input: Vec<u8>,
}

impl Generator {
    /// Connections, out of the interface of this index in the caller's network namespace; `templates` are of the [`KINDS`] in order.
    pub fn flows(ifindex: u32, settings: &Settings, templates: &[Template; KINDS]) -> Result<Self, BpfError> {
        let longest = templates.iter().max_by_key(|template| template.len);
        let input = longest.map_or(&[][..], |template| &template.bytes[..template.len as usize]);
        let mut generator =
            Self::load(ifindex, settings, SLOTS, settings.flows, "wirespan_flows", input.to_vec())?;
        generator.fill(TEMPLATES, templates)?;
        Ok(generator)
    }

    /// Frames of a capture, over and over, out of this interface.
    pub fn repeat(ifindex: u32, frames: &[Recorded]) -> Result<Self, BpfError> {
        let settings = Settings {
            flows: 1,
            new_every: 0,
            ip: 0,
            outer_udp: 0,
            payload: [0; 2],
            alike: 0,
            steps: [0; STEPS],
        };
        let count = u32::try_from(frames.len()).unwrap_or(u32::MAX).max(1);
        let longest = frames.iter().map(|frame| frame.len as usize).max().unwrap_or_default();
        let mut generator =
            Self::load(ifindex, &settings, RECORDING, count, "wirespan_repeat", vec![0; longest])?;
        generator.fill(RECORDING, frames)?;
        Ok(generator)
    }

    fn load(
        ifindex: u32,
        settings: &Settings,
        sized: &str,
        entries: u32,
        name: &'static str,
        input: Vec<u8>,
    ) -> Result<Self, BpfError> {
        let mut ebpf = EbpfLoader::new()
            .override_global(SETTINGS, settings, true)
            .map_max_entries(sized, entries)
            .load(OBJECT)
            .map_err(|error| BpfError::load(&error))?;
        program(&mut ebpf, name)?.load().map_err(|error| BpfError::load(&error))?;
        let mut generator = Self { ebpf, program: name, input };
        generator.send_to(ifindex)?;
        generator.set_pace(0, 1)?;
        Ok(generator)
    }

    fn send_to(&mut self, ifindex: u32) -> Result<(), BpfError> {
        let map = self.ebpf.map_mut(INTERFACE).ok_or_else(|| missing(INTERFACE))?;
        let mut map = DevMap::try_from(map).map_err(|error| BpfError::map(&error))?;
        map.set(0, ifindex, None, 0).map_err(|error| BpfError::map(&error))
    }

    fn fill<T: Pod>(&mut self, map: &str, values: &[T]) -> Result<(), BpfError> {
        let mut array = self.array::<T>(map)?;
        for (index, value) in (0..).zip(values) {
            array.set(index, value, 0).map_err(|error| BpfError::map(&error))?;
        }
        Ok(())
    }

    /// Sends `burst` frames every `interval_ns`; 0 for as fast as it goes.
    pub fn set_pace(&mut self, interval_ns: u64, burst: u32) -> Result<(), BpfError> {
        self.fill(PACE, &[Pace { interval_ns, burst: burst.max(1), reserved: 0 }])
    }

    /// Runs the program so often, on this core; a run sends a frame when one is due. Gives the mean time of a run, without
    /// what the kernel takes to set up and to clean up.
    pub fn run(&mut self, runs: u32) -> Result<Duration, BpfError> {
        let result = self.test_run(TestRunOptions {
            repeat: runs,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        })?;
        Ok(result.duration)
    }

    /// Runs the program once and gives the frame that it would have sent.
    pub fn frame(&mut self) -> Result<Vec<u8>, BpfError> {
        let mut frame = vec![0; FRAME_MAX];
        let result = self.test_run(TestRunOptions { data_out: Some(&mut frame), ..TestRunOptions::new() })?;
        frame.truncate(result.data_size_out as usize);
        Ok(frame)
    }

    fn test_run(&mut self, options: TestRunOptions<'_>) -> Result<TestRunResult, BpfError> {
        let options = TestRunOptions { data_in: Some(&self.input), ..options };
        let result = program(&mut self.ebpf, self.program)?.test_run(options);
        result.map_err(|error| BpfError::run(&error))
    }

    /// What was sent so far.
    pub fn sent(&mut self) -> Result<Sent, BpfError> {
        let state = self.array::<State>(STATE)?.get(&0, 0).map_err(|error| BpfError::map(&error))?;
        Ok(Sent { frames: state.frames, bytes: state.bytes })
    }

    fn array<T: Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, T>, BpfError> {
        let map = self.ebpf.map_mut(name).ok_or_else(|| missing(name))?;
        Array::try_from(map).map_err(|error| BpfError::map(&error))
    }
}

/// What becomes of frames at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They go to the network stack.
    Pass,
    /// They are gone.
    Drop,
}

/// A program that treats all frames of an interface alike; detached on drop. A veth interface takes redirected frames only
/// while a program is on it.
pub struct Taker {
    _ebpf: Ebpf,
}

impl Taker {
    /// Attaches it to an interface of the caller's network namespace.
    pub fn attach(interface: &str, verdict: Verdict) -> Result<Self, BpfError> {
        let mut ebpf = Ebpf::load(OBJECT).map_err(|error| BpfError::load(&error))?;
        let name = match verdict {
            Verdict::Pass => "wirespan_pass",
            Verdict::Drop => "wirespan_drop",
        };
        let taker = program(&mut ebpf, name)?;
        taker.load().map_err(|error| BpfError::load(&error))?;
        taker.attach(interface, XdpMode::Driver).map_err(|error| BpfError::attach(interface, &error))?;
        Ok(Self { _ebpf: ebpf })
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, BpfError> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().map_err(|error| BpfError::load(&error))
}

fn missing(name: &str) -> BpfError {
    BpfError::Load { reason: format!("the embedded object has no {name}") }
}
