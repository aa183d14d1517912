//! Services, as processes in this thread's network namespace.

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fmt;
use std::fs::File;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a service runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// service.py in this style.
    Python(&'static str),
    /// service.js in this style.
    Node(&'static str),
    /// Service.java with a pool of 16 threads.
    Java,
    /// service.go in this style.
    Go(&'static str),
    /// A proxy for the service that stands before it.
    Nginx { keep_alive: bool, http2: bool },
    /// A proxy for the service that stands before it, whose threads read all that came before they hand it on.
    Haproxy,
    /// A Redis without data.
    Redis,
    /// Knows every name under `oracle`.
    Dnsmasq,
}

/// One service of a scenario.
#[derive(Clone, Debug)]
pub struct Service {
    /// How others call it.
    pub name: &'static str,
    program: Program,
    tls: Option<&'static str>,
}

impl Service {
    /// Without TLS.
    pub fn new(name: &'static str, program: Program) -> Self {
        Self { name, program, tls: None }
    }

    /// Speaks this version of TLS only.
    pub fn tls(self, version: &'static str) -> Self {
        Self { tls: Some(version), ..self }
    }

    /// It is asked over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    fn scheme(&self) -> &'static str {
        match (self.program, self.tls) {
            (Program::Redis, _) => "redis",
            (Program::Dnsmasq, _) => "dns",
            (Program::Node("http2"), _) | (Program::Nginx { http2: true, .. }, None) => "h2",
            (Program::Go("grpc"), Some(_)) => "grpcs",
            (Program::Go("grpc" | "grpc-workers"), _) => "grpc",
            (_, Some(_)) => "https",
            (_, None) => "http",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        match self.program {
            Program::Python(style) => write!(f, "Python, {style}")?,
            Program::Node(style) => write!(f, "Node.js, {style}")?,
            Program::Java => f.write_str("Java, HttpServer with 16 threads, HttpClient")?,
            Program::Go("http2") => f.write_str("Go, net/http, HTTP/2")?,
            Program::Go("grpc") => f.write_str("Go, gRPC")?,
            Program::Go("grpc-workers") => f.write_str("Go, gRPC with 4 workers")?,
            Program::Go(style) => write!(f, "Go, {style}")?,
            Program::Nginx { keep_alive, http2 } => {
                let upstream = if keep_alive { "with" } else { "without" };
                write!(f, "nginx {upstream} keep-alive{}", if http2 { ", HTTP/2" } else { "" })?;
            }
            Program::Haproxy => f.write_str("HAProxy")?,
            Program::Redis => f.write_str("Redis")?,
            Program::Dnsmasq => f.write_str("dnsmasq")?,
        }
        self.tls.map_or(Ok(()), |version| write!(f, ", TLS {version}"))
    }
}

/// What services are made of: their sources, compiled where it takes that, and a certificate.
pub struct Workshop {
    sources: PathBuf,
    directory: tempfile::TempDir,
}

impl Workshop {
    /// Makes what the services of all scenarios need.
    pub fn new(services: &[&Service]) -> anyhow::Result<Self> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("accuracy");
        let directory = tempfile::Builder::new().prefix("wirespan-accuracy").tempdir()?;
        let this = Self { sources, directory };
        let uses = |program: fn(Program) -> bool| services.iter().any(|service| program(service.program));
        this.make_certificate()?;
        std::fs::write(this.resolver(), "nameserver 127.0.0.1\n")?;
        if uses(|program| matches!(program, Program::Go(_))) {
            let mut go = Command::new("go");
            go.args(["build", "-o"]).arg(this.path("service-go"));
            go.args(["service.go", "grpc.go"].map(|name| this.source(name)));
            // The libraries are those of Debian's packages.
            run(go.env("GO111MODULE", "off").env("GOFLAGS", "").env("GOPATH", "/usr/share/gocode"))?;
        }
        if uses(|program| program == Program::Java) {
            run(Command::new("javac").arg("-d").arg(this.path("")).arg(this.source("Service.java")))?;
        }
        Ok(this)
    }

    fn make_certificate(&self) -> anyhow::Result<()> {
        run(Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "30",
            ])
            .args(["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"])
            .arg("-keyout")
            .arg(self.key())
            .arg("-out")
            .arg(self.certificate()))
    }

    /// The certificate of all services, which is its own authority.
    pub fn certificate(&self) -> PathBuf {
        self.path("service.crt")
    }

    /// A resolv.conf that names the scenarios' own name server.
    pub fn resolver(&self) -> PathBuf {
        self.path("resolv.conf")
    }

    fn key(&self) -> PathBuf {
        self.path("service.key")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn source(&self, name: &str) -> PathBuf {
        self.sources.join(name)
    }
}

/// Where services listen, and whom they know.
pub struct Place<'a> {
    /// The address that they listen on.
    pub listen: &'static str,
    /// The address by which others call them.
    pub called: &'static str,
    /// Services that are there already, as [`Running::urls`].
    pub known: &'a [String],
}

impl Default for Place<'_> {
    fn default() -> Self {
        Self { listen: "127.0.0.1", called: "127.0.0.1", known: &[] }
    }
}

/// The services of a scenario while they run; they end when this is dropped.
pub struct Running {
    children: Vec<Child>,
    directory: tempfile::TempDir,
    /// Port of the last one.
    pub entry: u16,
    /// Of all that are known, NAME=URL.
    pub urls: Vec<String>,
}

impl Running {
    /// Starts services, and waits until each of them listens.
    pub fn start(services: &[Service], workshop: &Workshop, place: &Place<'_>) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("wirespan-services").tempdir()?;
        let mut this = Self { children: Vec::new(), directory, entry: 0, urls: place.known.to_vec() };
        for (service, port) in services.iter().zip(8000..) {
            let port = if service.program == Program::Dnsmasq { 53 } else { port };
            let mut command = this.command(service, port, place.listen, workshop)?;
            let said = File::create(this.path(&format!("{}.said", service.name)))?;
            let noted = match service.program {
                // It can note requests in no other file.
                Program::Haproxy => File::create(this.path(&format!("{}.log", service.name)))?,
                _ => said.try_clone()?,
            };
            command.stdin(Stdio::null()).stdout(noted).stderr(said).process_group(0);
            let child =
                command.spawn().with_context(|| format!("cannot start {}: {command:?}", service.name))?;
            this.children.push(child);
            this.wait_until_it_listens(service, port)?;
            this.urls.push(format!("{}={}://{}:{port}", service.name, service.scheme(), place.called));
            this.entry = port;
        }
        Ok(this)
    }

    /// What the services noted of requests and calls.
    pub fn notes(&self) -> anyhow::Result<String> {
        self.read_all("log")
    }

    /// What the services complained of.
    pub fn said(&self) -> String {
        self.read_all("said").unwrap_or_default()
    }

    fn read_all(&self, extension: &str) -> anyhow::Result<String> {
        let mut all = String::new();
        for entry in self.directory.path().read_dir()? {
            let path = entry?.path();
            if path.extension().is_some_and(|of_file| of_file == extension) {
                all += &std::fs::read_to_string(path)?;
            }
        }
        Ok(all)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the service listens that started last.
    fn next(&self) -> anyhow::Result<&str> {
        self.urls.last().and_then(|url| url.rsplit('/').next()).context("a proxy has nothing to ask")
    }

    fn command(
        &self,
        service: &Service,
        port: u16,
        listen: &str,
        workshop: &Workshop,
    ) -> anyhow::Result<Command> {
        let log = self.path(&format!("{}.log", service.name));
        // STYLE PORT LOG [NAME=URL]...
        let common = |mut command: Command, style: &str| {
            command.arg(style).arg(port.to_string()).arg(&log).args(&self.urls);
            command
        };
        let mut command = match service.program {
            Program::Python(style) => {
                let mut python = Command::new("/usr/bin/python3");
                python.arg(workshop.source("service.py"));
                common(python, style)
            }
            Program::Node(style) => {
                let mut node = Command::new("node");
                node.arg(workshop.source("service.js"));
                common(node, style)
            }
            Program::Java => {
                let mut java = Command::new("java");
                java.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
                    .arg(workshop.path(""))
                    .arg("Service");
                common(java, "16")
            }
            Program::Go(style) => {
                let style = match (style, service.tls) {
                    ("http2", _) => "http2",
                    ("grpc", _) => service.scheme(),
                    ("grpc-workers", _) => "grpc-workers",
                    (_, None) => "http",
                    (_, Some(_)) => "https",
                };
                common(Command::new(workshop.path("service-go")), style)
            }
            Program::Nginx { keep_alive, http2 } => {
                let next = self.next()?;
                let options = [service.tls.map(|_| "ssl"), http2.then_some("http2")];
                let versions = service.tls.map_or("TLSv1.3".to_owned(), |version| format!("TLSv{version}"));
                let prefix = self.path(service.name);
                std::fs::create_dir(&prefix)?;
                let text = std::fs::read_to_string(workshop.source("nginx.conf"))?
                    .replace("@LOG@", &log.to_string_lossy())
                    .replace("@NEXT@", next)
                    .replace("@KEEPALIVE@", if keep_alive { "keepalive 64;" } else { "" })
                    .replace("@PORT@", &port.to_string())
                    .replace("@LISTEN@", listen)
                    .replace("@OPTIONS@", &options.into_iter().flatten().collect::<Vec<_>>().join(" "))
                    .replace("@CERTIFICATE@", &workshop.certificate().to_string_lossy())
                    .replace("@KEY@", &workshop.key().to_string_lossy())
                    .replace("@TLS@", &versions);
                std::fs::write(prefix.join("nginx.conf"), text)?;
                let mut nginx = Command::new("nginx");
                nginx.args(["-e", "stderr", "-c", "nginx.conf", "-p"]).arg(prefix);
                nginx
            }
            Program::Haproxy => {
                let text = std::fs::read_to_string(workshop.source("haproxy.cfg"))?
                    .replace("@NEXT@", self.next()?)
                    .replace("@PORT@", &port.to_string())
                    .replace("@LISTEN@", listen);
                let file = self.path(&format!("{}.cfg", service.name));
                std::fs::write(&file, text)?;
                let mut haproxy = Command::new("haproxy");
                haproxy.args(["-db", "-f"]).arg(file);
                haproxy
            }
            Program::Redis => {
                let mut redis = Command::new("redis-server");
                redis.args([
                    "--protected-mode",
                    "no",
                    "--save",
                    "",
                    "--loglevel",
                    "warning",
                    "--bind",
                    listen,
                    "--port",
                ]);
                redis.arg(port.to_string()).arg("--dir").arg(self.directory.path());
                redis
            }
            Program::Dnsmasq => {
                let mut dnsmasq = Command::new("dnsmasq");
                dnsmasq.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]);
                dnsmasq.args(["--address=/oracle/127.0.0.1", "--address=/oracle/::1"]);
                dnsmasq.args(["--bind-interfaces", "--user=root", "--pid-file=", "--log-facility=-"]);
                dnsmasq
            }
        };
        command.env("LISTEN", listen).env("CERTIFICATE", workshop.certificate()).env("KEY", workshop.key());
        if let Some(version) = service.tls {
            command.env("TLS", version);
        }
        Ok(command)
    }

    fn wait_until_it_listens(&mut self, service: &Service, port: u16) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = self.children.last_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || Instant::now() > end {
                let said = std::fs::read_to_string(self.path(&format!("{}.said", service.name)))?;
                bail!("the service {} did not start; it said: {said}", service.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.children {
            // With all that it forked. Only a group that has ended already is not there.
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            let _ = child.wait();
        }
    }
}

/// Runs a command to its end.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
