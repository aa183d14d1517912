//! The parent's side of the store process: start, wait until it answers, restart, stop.

use crate::StoreError;
use crate::server::ADDRESS_BEFORE;
use std::ffi::OsString;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// What to start, and how patient to be.
#[derive(Clone, Debug)]
pub struct SupervisorOptions {
    /// Program and arguments of the store process, `ServeOptions::supervised` among them.
    pub argv: Vec<OsString>,
    /// Until it answers.
    pub patience: Duration,
}

impl SupervisorOptions {
    /// With a patience of 60 s: a start after a crash may have logs to replay.
    pub fn new(argv: Vec<OsString>) -> Self {
        Self { argv, patience: Duration::from_secs(60) }
    }
}

/// First pause before a restart; doubles while the child keeps dying.
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Until a child that was told to stop is killed, which loses nothing that it has acknowledged.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// A child that lived this long was well: the next pause is the first one again.
const WELL: Duration = Duration::from_secs(30);

/// A store process that is kept running. When this is dropped without [`Self::stop`], the child sees its standard input
/// close and ends by itself.
pub struct Supervisor {
    url: String,
    status: Arc<Status>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// A child with the pipe that keeps it alive; `Child::wait` would close the pipe, so it is kept apart.
struct Running {
    child: Child,
    pipe: Option<ChildStdin>,
}

#[derive(Default)]
struct Status {
    pid: AtomicU32,
    restarts: AtomicU64,
}

impl Supervisor {
    /// Starts the child and waits until it answers.
    pub async fn start(options: SupervisorOptions) -> Result<Self, StoreError> {
        let (running, url) = start_child(&options, None).await?;
        let status = Arc::new(Status::default());
        status.pid.store(running.child.id().unwrap_or(0), Ordering::Relaxed);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(keep_running(running, url.clone(), options, Arc::clone(&status), stopped));
        Ok(Self { url, status, stop: Some(stop), task })
    }

    /// Base URL, for [`crate::Client::new`].
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Process id of the child, 0 while there is none.
    pub fn pid(&self) -> u32 {
        self.status.pid.load(Ordering::Relaxed)
    }

    /// How often the child was started again.
    pub fn restarts(&self) -> u64 {
        self.status.restarts.load(Ordering::Relaxed)
    }

    /// Stops the child and waits until it is gone.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = (&mut self.task).await;
    }
}

/// Starts a child, where the one before it was when there was one, and reads `ready URL` from its standard output.
async fn start_child(
    options: &SupervisorOptions,
    before: Option<&str>,
) -> Result<(Running, String), StoreError> {
    let failed = |reason: String| StoreError::Child { reason };
    let (program, arguments) =
        options.argv.split_first().ok_or_else(|| failed("no program was named".into()))?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(before.map(|url| (ADDRESS_BEFORE, url.trim_start_matches("http://"))))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|e| failed(format!("{}: {e}", program.display())))?;
    let pipe = child.stdin.take();
    let Some(stdout) = child.stdout.take() else { return Err(failed("it has no standard output".into())) };
    let mut lines = BufReader::new(stdout).lines();
    let first = timeout(options.patience, lines.next_line()).await;
    let url = match &first {
        Ok(Ok(Some(line))) => line.strip_prefix("ready ").map(str::to_owned),
        _ => None,
    };
    if let Some(url) = url {
        // Whatever else it prints is read, so that it never blocks on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        return Ok((Running { child, pipe }, url));
    }
    let reason = match first {
        Ok(Ok(None)) => match child.wait().await {
            Ok(status) => format!("it ended with {status}; its own message is above"),
            Err(e) => e.to_string(),
        },
        Ok(Ok(Some(line))) => format!("it said {line:?} instead of ready"),
        Ok(Err(e)) => e.to_string(),
        Err(_) => format!("it was not ready within {} s", options.patience.as_secs()),
    };
    end_child(Running { child, pipe }).await;
    Err(failed(reason))
}

async fn keep_running(
    mut running: Running,
    url: String,
    options: SupervisorOptions,
    status: Arc<Status>,
    mut stop: oneshot::Receiver<()>,
) {
    let mut pause = MIN_PAUSE;
    loop {
        let started = Instant::now();
        let ended = tokio::select! {
            ended = running.child.wait() => ended,
            _ = &mut stop => {
                end_child(running).await;
                return;
            }
        };
        status.pid.store(0, Ordering::Relaxed);
        if started.elapsed() > WELL {
            pause = MIN_PAUSE;
        }
        match ended {
            Ok(code) => {
                tracing::warn!(%code, pause_ms = pause.as_millis() as u64, "The store process ended, starting it again")
            }
            Err(error) => tracing::warn!(%error, "The store process is lost, starting another"),
        }
        running = loop {
            tokio::select! {
                () = sleep(pause) => {}
                _ = &mut stop => return,
            }
            pause = (pause * 2).min(MAX_PAUSE);
            match start_child(&options, Some(&url)).await {
                Ok((running, _)) => break running,
                Err(error) => tracing::error!(%error, "The store process does not start"),
            }
        };
        status.pid.store(running.child.id().unwrap_or(0), Ordering::Relaxed);
        status.restarts.fetch_add(1, Ordering::Relaxed);
    }
}

/// Closes the child's standard input, which tells it to end; kills it when it takes too long.
async fn end_child(Running { mut child, pipe }: Running) {
    drop(pipe);
    if timeout(STOP_PATIENCE, child.wait()).await.is_err() {
        tracing::warn!("The store process does not stop, killing it");
        let _ = child.kill().await;
    }
}
