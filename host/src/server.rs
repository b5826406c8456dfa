//! A host's life: open the stores, start the jobs, serve, and go down in order.
//!
//! Invariants:
//! * jobs come back before the first request is answered;
//! * on SIGINT and SIGTERM nothing new is accepted, and jobs that run take a last checkpoint at which their sources stop; what the
//!   jobs are to do stays as it is;
//! * a task or a request that does not end holds the process up for a bounded time only: a job survives worse ends than that.

use crate::config::{ConfigError, HostConfig};
use crate::data_folder::{DataFolder, DataFolderError};
use crate::http::{self, HttpConfig};
use crate::job_manager::{JobArchive, JobManager, JobRuntime, ManagerError, Parts, Resume};
use crate::job_store::{JobStore, JobStoreError};
use crate::metrics::Metrics;
use crate::module_store::{ModuleInspector, ModuleStore, ModuleStoreError};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidegate_core::limits::CompileLimits;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// For tasks to end: a guest call has its deadline, and an upload may be given up.
pub const END_OF_JOBS: Duration = Duration::from_secs(10);
/// For answers that are on their way.
const END_OF_REQUESTS: Duration = Duration::from_secs(3);

/// Makes the parts that run wasm and keep checkpoints. Tests bring their own.
pub trait Wiring: Send + Sync {
    fn inspector(&self, limits: CompileLimits) -> Result<Arc<dyn ModuleInspector>, HostError>;

    /// The whole life of a process that only compiles. Returns its exit code.
    fn compile_worker(&self, limits: CompileLimits) -> u8;

    fn engine(&self, config: &HostConfig, modules: &ModuleStore, metrics: &Arc<Metrics>) -> Result<Engine, HostError>;
}

pub struct Engine {
    pub runtime: Arc<dyn JobRuntime>,
    pub archive: Arc<dyn JobArchive>,
}

/// The host can't come up, or could not stay.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Folder(#[from] DataFolderError),
    #[error(transparent)]
    Modules(#[from] ModuleStoreError),
    #[error(transparent)]
    Jobs(#[from] JobStoreError),
    #[error(transparent)]
    Manager(#[from] ManagerError),
    #[error("listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("serve HTTP: {0}")]
    Serve(io::Error),
    #[error("start the wasm engine: {0}")]
    Engine(String),
    #[error("start the threads of the host: {0}")]
    Threads(io::Error),
}

impl HostError {
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Listen { source, address } => match source.kind() {
                io::ErrorKind::AddrInUse => Some("another program listens there: stop it, or choose another --listen".into()),
                io::ErrorKind::PermissionDenied => {
                    Some(format!("port {} needs privileges: choose one above 1023", address.port()))
                }
                io::ErrorKind::AddrNotAvailable => Some("the address is none of this machine's".into()),
                _ => None,
            },
            Self::Folder(error) => Some(error.remedy()),
            Self::Config(error) => error.remedy(),
            Self::Modules(_) | Self::Jobs(_) => Some("check that the folder is there and writable".into()),
            Self::Manager(_) | Self::Serve(_) | Self::Engine(_) | Self::Threads(_) => None,
        }
    }
}

/// The handle to everything, over the stores of a data folder.
pub async fn open(config: &HostConfig, wiring: &dyn Wiring, resume: Resume) -> Result<JobManager, HostError> {
    let folder = DataFolder::open(&config.data)?;
    let modules = ModuleStore::open(&config.modules(), wiring.inspector(config.compile)?)?;
    let jobs = JobStore::open(&config.jobs())?.claimed_by(folder.claim());
    let metrics = Arc::new(Metrics::default());
    let Engine { runtime, archive } = wiring.engine(config, &modules, &metrics)?;
    let parts = Parts { runtime, archive, modules, jobs, metrics, base: config.base.clone(), resume, folder: Some(folder) };
    Ok(JobManager::open(parts).await?)
}

/// Serves until `end` resolves; jobs that run have `last_checkpoint` then to take one. `announce` hears where, once everything is up; the address differs from `listen` where that asks
/// for any free port.
pub async fn serve(
    config: &HostConfig,
    listen: SocketAddr,
    http: HttpConfig,
    wiring: &dyn Wiring,
    announce: impl FnOnce(SocketAddr, &JobManager),
    last_checkpoint: Duration,
    end: impl Future<Output = ()>,
) -> Result<(), HostError> {
    // First, so that a host that can't listen does not take the jobs from one that can.
    let failed = |source| HostError::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let manager = open(config, wiring, Resume::All).await?;
    let (close, closed) = oneshot::channel::<()>();
    let mut serving = tokio::spawn(http::serve(listener, manager.clone(), http, async move {
        // An error means that the sender is gone, which is an end too.
        let _ = closed.await;
    }));
    announce(address, &manager);
    tokio::select! {
        result = &mut serving => {
            manager.shutdown(last_checkpoint, END_OF_JOBS).await;
            return Err(HostError::Serve(result.map_or_else(io::Error::other, |served| served.err().unwrap_or_else(|| io::Error::other("it ended")))));
        }
        () = end => {}
    }
    tracing::info!("going down: jobs take a last checkpoint and come back with the next host");
    let _ = close.send(());
    for job in manager.shutdown(last_checkpoint, END_OF_JOBS).await {
        tracing::warn!(%job, seconds = END_OF_JOBS.as_secs(), "tasks did not end in time and are left behind");
    }
    match tokio::time::timeout(END_OF_REQUESTS, serving).await {
        Ok(Ok(result)) => result.map_err(HostError::Serve),
        Ok(Err(panic)) => Err(HostError::Serve(io::Error::other(panic))),
        // Somebody waits for an operation that does not end.
        Err(_) => Ok(()),
    }
}

/// Each time the user or the system asks the process to end.
pub async fn end_asked() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be listened for");
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }
    #[cfg(not(unix))]
    {
        let _ = tokio::signal::ctrl_c().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job_manager::fake::{FakeInspector, FakeRuntime};
    use crate::job_manager::{JobState, StartFrom};
    use serde_json::json;
    use tokio::sync::mpsc;

    struct Fakes(Arc<FakeRuntime>);

    impl Wiring for Fakes {
        fn inspector(&self, _: CompileLimits) -> Result<Arc<dyn ModuleInspector>, HostError> {
            Ok(Arc::new(FakeInspector))
        }

        fn compile_worker(&self, _: CompileLimits) -> u8 {
            unreachable!("nobody starts one")
        }

        fn engine(&self, _: &HostConfig, _: &ModuleStore, _: &Arc<Metrics>) -> Result<Engine, HostError> {
            Ok(Engine { runtime: self.0.clone(), archive: self.0.archive.clone() })
        }
    }

    const ANY_PORT: &str = "127.0.0.1:0";

    #[tokio::test(flavor = "multi_thread")]
    async fn a_host_that_goes_down_stops_its_jobs_and_the_next_one_brings_them_back() {
        let folder = tempfile::tempdir().unwrap();
        let config = HostConfig::resolve(&folder.path().join("data"), folder.path()).unwrap();
        for host in 0..2 {
            let fakes = Fakes(Arc::default());
            let (up, mut is_up) = mpsc::unbounded_channel();
            let (end, ended) = oneshot::channel::<()>();
            let announce = |address, manager: &JobManager| up.send((address, manager.clone())).unwrap();
            let listen = ANY_PORT.parse().unwrap();
            let ended = async { ended.await.unwrap() };
            let serving = serve(&config, listen, HttpConfig::default(), &fakes, announce, END_OF_JOBS, ended);
            let user = async {
                let (address, manager): (SocketAddr, JobManager) = is_up.recv().await.unwrap();
                let ready = tokio::task::spawn_blocking(move || ureq::get(format!("http://{address}/readyz")).call());
                assert_eq!(ready.await.unwrap().unwrap().status(), 200);
                if host == 0 {
                    manager.put_job("a", json!({ "name": "a" }), None).await.unwrap();
                }
                assert_eq!(manager.show("a").unwrap().status.state, JobState::Running);
                assert_eq!(fakes.0.starts_of("a"), [StartFrom::Latest]);
                end.send(()).unwrap();
                manager
            };
            let (served, manager) = tokio::join!(serving, user);
            served.unwrap();
            assert_eq!(manager.show("a").unwrap().status.state, JobState::Cancelled);
            assert!(!manager.is_ready());
        }
    }

    #[tokio::test]
    async fn a_host_that_can_not_listen_leaves_the_jobs_alone() {
        let folder = tempfile::tempdir().unwrap();
        let config = HostConfig::resolve(folder.path(), folder.path()).unwrap();
        let taken = TcpListener::bind(ANY_PORT).await.unwrap().local_addr().unwrap();
        let _other = std::net::TcpListener::bind(taken).unwrap();
        let fakes = Fakes(Arc::default());
        let serving = serve(&config, taken, HttpConfig::default(), &fakes, |_, _| {}, END_OF_JOBS, std::future::pending());
        let error = serving.await.unwrap_err();
        assert!(error.remedy().unwrap().contains("--listen"), "{error}");
        assert!(!config.jobs().exists(), "no store was opened");
    }
}
