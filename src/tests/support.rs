//! The command as a test runs it, and a server in a namespace for it to watch.

#![allow(dead_code, reason = "each test file uses a part")]

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whether tests that need root can run; in CI they must.
pub fn is_root() -> bool {
    // SAFETY: geteuid(2) has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    assert!(root || std::env::var_os("CI").is_none(), "this test needs root, and in CI none may skip");
    if !root {
        eprintln!("skipped: needs root for network namespaces, live capture and tracing");
    }
    root
}

pub fn wirespan(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wirespan")).args(arguments).output().unwrap()
}

/// What it printed as lines of JSON.
pub fn objects(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Frames of the files = packets + the sum of named drops, by the last line of `--emit stats`.
pub fn accounts_for_frames(stats: &Value) {
    assert_eq!(stats["kind"], "stats", "{stats}");
    let number = |value: &Value| value.as_u64().unwrap();
    let dropped: u64 = stats["undecoded"].as_object().unwrap().values().map(number).sum();
    assert_eq!(number(&stats["packets"]), number(&stats["decoded"]) + dropped, "{stats}");
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A capture of real servers.
pub fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dataplane/tests/fixtures/shop.pcap")
}

/// Makes a certificate and its key, both in `web.pem` of a directory; gives its path.
pub fn certificate(directory: &Path) -> String {
    let at = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let (key, certificate, both) = (at("key.pem"), at("cert.pem"), at("web.pem"));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-subj", "/CN=web", "-keyout", &key, "-out", &certificate])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let parts = [&key, &certificate].map(|file| std::fs::read_to_string(file).unwrap());
    std::fs::write(&both, parts.concat()).unwrap();
    both
}

pub fn run(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
}

/// A system call that is refused where its arguments have these values.
pub struct Refused {
    pub call: libc::c_long,
    /// Places and values of arguments.
    pub arguments: &'static [(u32, u32)],
    pub error: i32,
}

/// The command on a kernel that refuses system calls, as an older one does, or as containers are told to.
pub fn where_refused(refused: &[Refused]) -> Command {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let unless =
        |k, skip| libc::sock_filter { jf: skip, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k) };
    let end = |verdict| statement(libc::BPF_RET | libc::BPF_K, verdict);
    let mut filter = Vec::new();
    for Refused { call, arguments, error } in refused {
        // In `struct seccomp_data`, the number comes first, and arguments of 8 bytes from byte 16 on.
        let looks = arguments.iter().map(|&(place, value)| (16 + 8 * place, value));
        let looks: Vec<_> = std::iter::once((0, *call as u32)).chain(looks).collect();
        for (at, &(offset, value)) in looks.iter().enumerate() {
            filter.extend([load(offset), unless(value, (2 * (looks.len() - at) - 1) as u8)]);
        }
        filter.push(end(libc::SECCOMP_RET_ERRNO | *error as u32));
    }
    filter.push(end(libc::SECCOMP_RET_ALLOW));
    let mut command = Command::new(env!("CARGO_BIN_EXE_wirespan"));
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the program lives as long as the calls, which change this process alone.
        let is_installed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
        };
        if is_installed { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: it makes system calls only.
    unsafe { command.pre_exec(install) };
    command
}

/// A network namespace with a server in it, and a veth pair to it; removed at the end.
pub struct Host {
    name: String,
    pub veth: String,
    pub address: String,
    pub server: Child,
}

impl Host {
    /// Runs `python3 ARGUMENTS` in the namespace; it listens on port 8000. `number` tells the tests of one run apart.
    pub fn serving(number: u8, arguments: &[&str]) -> Self {
        Self::run(number, arguments, |namespace| {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace, "python3"]);
            command
        })
    }

    /// The same in a container: with processes and a cgroup of its own, all of which end with the server.
    pub fn contained(number: u8, arguments: &[&str], container: &Container) -> Self {
        Self::run(number, arguments, |namespace| {
            let mut command = Command::new("sh");
            let enter = "echo $$ > \"$0\"/cgroup.procs && exec ip netns exec \"$@\"";
            command.args(["-c", enter, container.directory.to_str().unwrap(), namespace]);
            command.args(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "python3"]);
            command
        })
    }

    fn run(number: u8, arguments: &[&str], python: impl FnOnce(&str) -> Command) -> Self {
        let id = std::process::id();
        let (name, veth) = (format!("wss{number}-{id}"), format!("wss{number}{id}"));
        let address = format!("10.213.{number}.2");
        run(&format!("ip netns add {name}"));
        run(&format!("ip link add {veth} type veth peer name eth0 netns {name}"));
        run(&format!("ip addr add 10.213.{number}.1/30 dev {veth}"));
        run(&format!("ip link set {veth} up"));
        run(&format!("ip -n {name} addr add {address}/30 dev eth0"));
        run(&format!("ip -n {name} link set eth0 up"));
        run(&format!("ip -n {name} link set lo up"));
        let server =
            python(&name).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let host = Self { name, veth, address, server };
        let started = Instant::now();
        while TcpStream::connect((host.address.as_str(), 8000)).is_err() {
            assert!(started.elapsed() < PATIENCE, "the server did not come");
            std::thread::sleep(Duration::from_millis(50));
        }
        host
    }

    pub fn web(number: u8) -> Self {
        Self::serving(number, &["-m", "http.server", "8000", "--directory", "/proc/self/net"])
    }

    /// A command in the namespace.
    pub fn inside(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(words);
        command
    }

    /// Inode of the namespace.
    pub fn netns(&self) -> u64 {
        std::fs::metadata(format!("/run/netns/{}", self.name)).unwrap().ino()
    }

    /// Frames that went over the veth pair, as the kernel counts them.
    pub fn frames(&self) -> u64 {
        let count = |direction: &str| {
            let path = format!("/sys/class/net/{}/statistics/{direction}_packets", self.veth);
            std::fs::read_to_string(path).unwrap().trim().parse::<u64>().unwrap()
        };
        count("rx") + count("tx")
    }

    /// Deletes the namespace's name; it is there as long as the server is.
    pub fn forget_name(&self) {
        run(&format!("ip netns del {}", self.name));
    }

    pub fn get(&self, path: &str) -> Child {
        let url = format!("http://{}:8000/{path}", self.address);
        Command::new("curl").args(["-s", "-o", "/dev/null", "--max-time", "30", &url]).spawn().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
        let _ = Command::new("ip").args(["link", "del", &self.veth]).stderr(Stdio::null()).status();
    }
}

/// A cgroup as a container's runtime makes it; removed at the end.
pub struct Container {
    pub id: String,
    directory: PathBuf,
}

impl Container {
    pub fn new() -> Self {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let root = fields.find(|fields| fields[2] == "cgroup2").unwrap()[1];
        let id = format!("{:064x}", std::process::id());
        let directory = Path::new(root).join(format!("docker-{id}.scope"));
        std::fs::create_dir(&directory).unwrap();
        Self { id, directory }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.directory);
    }
}

/// `wirespan up` with a store of its own; killed at the end.
pub struct Up {
    pub child: Child,
    pub page: String,
    /// What it said before it began to watch.
    pub said: String,
    /// Its data directory.
    pub data: PathBuf,
    messages: Option<JoinHandle<String>>,
    _directory: tempfile::TempDir,
}

impl Up {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_wirespan")), arguments)
    }

    /// Starts it by a command that takes its arguments behind its own.
    pub fn start_by(mut command: Command, arguments: &[&str]) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (page, clickhouse) = (free(), free());
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let mut child = command
            .arg("up")
            .args(arguments)
            .args(["--data", data.to_str().unwrap(), "--listen", &page, "--clickhouse-listen", &clickhouse])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut messages = BufReader::new(child.stderr.take().unwrap());
        let (mut said, mut line) = (String::new(), String::new());
        while !line.contains("wirespan watches") {
            line.clear();
            assert!(messages.read_line(&mut line).unwrap() > 0, "it ended: {said}");
            said.push_str(&line);
        }
        // It must not wait for its messages to be read.
        let messages = std::thread::spawn(move || {
            let said = messages.lines().map_while(Result::ok).inspect(|line| eprintln!("{line}"));
            said.fold(String::new(), |said, line| said + &line + "\n")
        });
        Self { child, page, said, data, messages: Some(messages), _directory: directory }
    }

    /// Fallbacks that were counted, each by what tells it from others, such as `interface="lo",kind="no_zero_copy"`.
    pub fn fallbacks(&self) -> Vec<String> {
        let Counts(text) = self.counts();
        let labels = text.lines().filter_map(|line| line.strip_prefix("wirespan_fallbacks_total{"));
        labels.map(|line| line.strip_suffix("} 1").unwrap_or(line).to_owned()).collect()
    }

    /// The sum of a counter over its labels.
    pub fn count(&self, name: &str) -> u64 {
        self.counts().of(name)
    }

    /// All counters of one moment.
    pub fn counts(&self) -> Counts {
        let url = format!("http://{}/metrics", self.page);
        Counts(text(&Command::new("curl").args(["-sS", &url]).output().unwrap().stdout))
    }

    /// Frames on the wire = processed + the sum of named drops. `sent` is what was on the wire while it watched.
    pub fn accounts_for_frames(&self, sent: u64) {
        self.wait_for("the account of all frames", |up| {
            up.counts().frames().is_some_and(|told| told >= sent)
        });
        assert_eq!(self.counts().frames(), Some(sent));
    }

    /// The same of what goes over a host's veth pair from now on, as the kernel counts it: to be given to
    /// [`Self::accounts_for_wire`].
    pub fn wire<'a>(&self, host: &'a Host) -> Wire<'a> {
        let mut wire = Wire { host, before: wire_before(host, self) };
        let mut calm = 0;
        // What came at the start may still be on its way.
        self.wait_for("a calm moment", |up| {
            let before = wire_before(host, up);
            calm = if before.is_some() && before == wire.before { calm + 1 } else { 0 };
            wire.before = before;
            calm == 10
        });
        wire
    }

    /// Frames on the wire = processed + the sum of named drops.
    pub fn accounts_for_wire(&self, wire: &Wire<'_>) {
        self.wait_for("the account of all frames", |up| wire_before(wire.host, up) == wire.before);
    }

    /// Events that the programs in the kernel made = events handled + the sum of named losses.
    pub fn accounts_for_events(&self) {
        // This host goes on making events: there are moments at which none is on its way.
        self.wait_for("the account of all events", |up| {
            let counts = up.counts();
            let of = |name: &str| counts.of(&format!("wirespan_{name}_total"));
            let lost = ["ring_full", "malformed"]
                .map(|reason| counts.of_reason("wirespan_tracer_lost_total", reason))
                .iter()
                .sum::<u64>();
            let handled = of("host_events") + of("tracer_own");
            handled > 0 && handled == of("tracer_events") && handled + lost == of("tracer_made")
        });
    }

    pub fn ask(&self, sql: &str) -> Vec<Vec<Value>> {
        self.try_ask(sql).unwrap_or_else(|answer| panic!("{answer}"))
    }

    /// Rows, or what was answered instead.
    pub fn try_ask(&self, sql: &str) -> Result<Vec<Vec<Value>>, Value> {
        let body = serde_json::json!({ "sql": sql }).to_string();
        let url = format!("http://{}/api/sql", self.page);
        let output = Command::new("curl")
            .args(["-sS", "-H", "content-type: application/json", "--data-binary", &body, &url])
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        serde_json::from_value(answer["rows"].clone()).map_err(|_| answer)
    }

    /// The answer of the API, good or bad.
    pub fn get(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.page);
        let output = Command::new("curl").args(["-sS", &url]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn wait_for(&self, what: &str, mut is_there: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !is_there(self) {
            assert!(start.elapsed() < PATIENCE, "{what} did not come");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends it as a user does; gives how it ended and what it said since it began to watch.
    pub fn stop(&mut self) -> (ExitStatus, String) {
        if let Ok(None) = self.child.try_wait() {
            // SAFETY: kill(2) on a child of ours that was not waited for.
            unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        }
        let status = self.child.wait().unwrap();
        let messages = self.messages.take().map(|thread| thread.join().unwrap());
        (status, messages.unwrap_or_default())
    }
}

/// What `/metrics` told at one moment.
pub struct Counts(String);

impl Counts {
    /// The sum of a counter over its labels.
    pub fn of(&self, name: &str) -> u64 {
        self.sum(name, |_| true)
    }

    /// The same, of those with this reason.
    pub fn of_reason(&self, name: &str, reason: &str) -> u64 {
        self.of_label(name, "reason", reason)
    }

    /// The same, of those where a label has this value.
    pub fn of_label(&self, name: &str, label: &str, value: &str) -> u64 {
        self.sum(name, |labels| labels.contains(&format!("{label}=\"{value}\"")))
    }

    fn sum(&self, name: &str, is_wanted: impl Fn(&str) -> bool) -> u64 {
        let lines = self.0.lines().filter_map(|line| line.rsplit_once(' '));
        let of_name = lines.filter(|(what, _)| what.split('{').next() == Some(name) && is_wanted(what));
        of_name.map(|(_, count)| count.parse::<u64>().unwrap()).sum()
    }

    /// All frames that are told of, when those that a worker had are packets and named drops.
    pub fn frames(&self) -> Option<u64> {
        let of = |name: &str| self.of(&format!("wirespan_{name}_total"));
        let whole =
            of("frames") == of("capture_received") && of("frames") == of("packets") + of("frames_dropped");
        whole.then(|| of("frames") + of("capture_lost") + of("capture_kept_back"))
    }
}

/// What goes over a host's veth pair.
pub struct Wire<'a> {
    host: &'a Host,
    /// Frames that went before the capture began.
    before: Option<u64>,
}

fn wire_before(host: &Host, up: &Up) -> Option<u64> {
    // In this order: what comes in between is not told of twice.
    let told = up.counts().frames()?;
    host.frames().checked_sub(told)
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.stop();
        }
    }
}
