//! Every call that leaves the process, numbered: a test chooses one of them and what becomes of it.
//!
//! Named points ([`super::Fault`]) stand where somebody thought of a crash. Here nobody has to think: the calls of the checkpoint
//! store, of sinks and of sources, and the file calls below them, are steps 0, 1, 2, … of an incarnation of the job, and a loop over
//! all of them is a loop over all places where it can die or be refused. All in one process: thousands of runs cost some minutes.
//!
//! ```text
//!   Runtime::with_io_steps ─► store wrapped, sources and sinks wrapped, task threads entered
//!        step k ─► CrashBefore │ CrashAfter │ Error │ ErrorAfter
//! ```
//!
//! Invariants:
//! * after a crash no call of this incarnation has an effect any more: to the outside the process is dead, whatever its threads do;
//! * [`IoSteps::buried`] waits for the effects that were under way: a process that is gone has none;
//! * a job that runs without this pays for a look at a thread's local variable before a file call, and for nothing else.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How late the answer of a call comes that took effect and is told to have failed.
const LATE: Duration = Duration::from_millis(1);

/// What becomes of the chosen step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trouble {
    /// The process dies before the call.
    CrashBefore,
    /// The call takes effect, and the process dies before it hears of it.
    CrashAfter,
    /// The call is refused and has no effect.
    Error,
    /// The call takes effect, and what comes back, late, is an error: a timeout.
    ErrorAfter,
}

impl Trouble {
    pub const ALL: [Self; 4] = [Self::CrashBefore, Self::CrashAfter, Self::Error, Self::ErrorAfter];

    pub fn is_crash(self) -> bool {
        matches!(self, Self::CrashBefore | Self::CrashAfter)
    }
}

/// The steps of one incarnation.
#[derive(Debug, Clone)]
pub struct IoSteps(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    chosen: Option<(u64, Trouble)>,
    /// A source holds back after so many batches until it was asked for its positions: checkpoints of all runs stand between the
    /// same records, or nearly so.
    batches_per_checkpoint: u32,
    taken: AtomicU64,
    dead: AtomicBool,
    died: Notify,
    /// Calls whose effect may be under way.
    under_way: AtomicU64,
    names: Mutex<Vec<&'static str>>,
}

/// What becomes of one call.
#[derive(Debug, Clone, Copy)]
struct Fate {
    happens: bool,
    answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Heard,
    Error,
    LateError,
    /// The process dies, or is dead.
    Never,
}

/// Of an effect that is under way, also where its future is dropped.
struct UnderWay<'a>(&'a AtomicU64);

impl<'a> UnderWay<'a> {
    fn begin(calls: &'a AtomicU64) -> Self {
        calls.fetch_add(1, SeqCst);
        Self(calls)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl IoSteps {
    /// `chosen`: a step, counted from 0, and what becomes of it.
    pub fn new(chosen: Option<(u64, Trouble)>, batches_per_checkpoint: u32) -> Self {
        Self(Arc::new(Inner {
            chosen,
            batches_per_checkpoint,
            taken: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            died: Notify::new(),
            under_way: AtomicU64::new(0),
            names: Mutex::default(),
        }))
    }

    /// Steps so far.
    pub fn taken(&self) -> u64 {
        self.0.taken.load(SeqCst)
    }

    pub fn is_dead(&self) -> bool {
        self.0.dead.load(SeqCst)
    }

    /// Names of the steps so far, in their order.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn batches_per_checkpoint(&self) -> u32 {
        self.0.batches_per_checkpoint
    }

    /// Until the process is dead and what it had under way has come to its end.
    pub async fn buried(&self) {
        while !self.is_dead() {
            let died = self.0.died.notified();
            if !self.is_dead() {
                died.await;
            }
        }
        while self.0.under_way.load(SeqCst) > 0 {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    }

    fn die(&self) {
        self.0.dead.store(true, SeqCst);
        self.0.died.notify_waiters();
        self.0.died.notify_one();
    }

    /// The caller has announced its effect before: who waits for effects misses none.
    fn next(&self, name: &'static str) -> Fate {
        const DEAD: Fate = Fate { happens: false, answer: Answer::Never };
        if self.is_dead() {
            return DEAD;
        }
        let number = {
            let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.push(name);
            self.0.taken.fetch_add(1, SeqCst)
        };
        let fate = match self.0.chosen {
            Some((step, trouble)) if step == number => match trouble {
                Trouble::CrashBefore => DEAD,
                Trouble::CrashAfter => Fate { happens: true, answer: Answer::Never },
                Trouble::Error => Fate { happens: false, answer: Answer::Error },
                Trouble::ErrorAfter => Fate { happens: true, answer: Answer::LateError },
            },
            _ => Fate { happens: true, answer: Answer::Heard },
        };
        if !fate.happens && fate.answer == Answer::Never {
            self.die();
        }
        fate
    }

    /// A call of a thread that may wait. A dead process hears an error: its threads must come to an end somehow.
    pub fn call<T, E>(
        &self,
        name: &'static str,
        call: impl FnOnce() -> Result<T, E>,
        refused: impl FnOnce() -> E,
    ) -> Result<T, E> {
        let under_way = UnderWay::begin(&self.0.under_way);
        let fate = self.next(name);
        let result = fate.happens.then(call);
        match (fate.answer, result) {
            (Answer::Heard, Some(result)) => result,
            (Answer::LateError, _) => {
                std::thread::sleep(LATE);
                Err(refused())
            }
            (Answer::Never, _) => {
                drop(under_way);
                self.die();
                Err(refused())
            }
            _ => Err(refused()),
        }
    }

    /// A call that can't fail: only a crash means something to it.
    pub fn infallible<T: Default>(&self, name: &'static str, call: impl FnOnce() -> T) -> T {
        let (mut call, mut done) = (Some(call), None);
        let happens = || {
            done = call.take().map(|call| call());
            Ok::<(), ()>(())
        };
        let _ = self.call(name, happens, || ());
        match (done, call) {
            (Some(done), _) => done,
            (None, Some(call)) if !self.is_dead() => call(),
            (None, _) => T::default(),
        }
    }

    /// As [`Self::call`]; for a dead process the answer never comes.
    pub async fn call_async<T, E>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, E>>,
        refused: impl FnOnce() -> E,
    ) -> Result<T, E> {
        let under_way = UnderWay::begin(&self.0.under_way);
        let fate = self.next(name);
        let result = if fate.happens { Some(call.await) } else { None };
        match (fate.answer, result) {
            (Answer::Heard, Some(result)) => result,
            (Answer::LateError, _) => {
                tokio::time::sleep(LATE).await;
                Err(refused())
            }
            (Answer::Never, _) => {
                drop(under_way);
                self.die();
                std::future::pending().await
            }
            _ => Err(refused()),
        }
    }

    /// File calls of this thread are steps of this incarnation until the guard is dropped.
    pub fn enter(&self) -> Entered {
        Entered(CURRENT.replace(Some(self.clone())))
    }
}

thread_local! {
    static CURRENT: RefCell<Option<IoSteps>> = const { RefCell::new(None) };
}

/// Of what the thread worked for before.
pub struct Entered(Option<IoSteps>);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

/// The incarnation that this thread works for, where steps are counted: to take it along to another thread.
pub fn current() -> Option<IoSteps> {
    CURRENT.with_borrow(Clone::clone)
}

/// A call into the file system.
#[inline]
pub fn io<T>(name: &'static str, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match current() {
        None => call(),
        Some(steps) => steps.call(name, call, || io::Error::other(format!("injected: {name}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three(steps: &IoSteps) -> (Vec<u32>, Vec<bool>) {
        let mut done = Vec::new();
        let _entered = steps.enter();
        let mut call = |i| {
            let happens = || {
                done.push(i);
                Ok(())
            };
            io("test", happens).is_ok()
        };
        let heard = (0..3).map(&mut call).collect();
        (done, heard)
    }

    #[test]
    fn each_trouble_is_what_it_says() {
        let expected = [
            (Trouble::CrashBefore, vec![0], vec![true, false, false]),
            (Trouble::CrashAfter, vec![0, 1], vec![true, false, false]),
            (Trouble::Error, vec![0, 2], vec![true, false, true]),
            (Trouble::ErrorAfter, vec![0, 1, 2], vec![true, false, true]),
        ];
        for (trouble, done, heard) in expected {
            let steps = IoSteps::new(Some((1, trouble)), 0);
            assert_eq!(three(&steps), (done, heard), "{trouble:?}");
            assert_eq!(steps.is_dead(), trouble.is_crash());
        }
    }

    #[test]
    fn a_call_that_cannot_fail_is_carried_out_unless_the_process_dies_before() {
        for (trouble, answer) in Trouble::ALL.into_iter().zip([0, 7, 7, 7]) {
            let steps = IoSteps::new(Some((0, trouble)), 0);
            assert_eq!(steps.infallible("test", || 7), answer, "{trouble:?}");
        }
    }

    #[test]
    fn a_thread_that_works_for_nobody_counts_nothing() {
        let steps = IoSteps::new(Some((0, Trouble::CrashBefore)), 0);
        io("test", || Ok(())).unwrap();
        assert_eq!(steps.taken(), 0);
        assert_eq!(three(&steps).0, Vec::<u32>::new());
        io("test", || Ok(())).unwrap();
    }

    #[tokio::test]
    async fn a_dead_process_hears_nothing_and_is_buried_when_its_effects_are_over() {
        let steps = IoSteps::new(Some((0, Trouble::CrashAfter)), 0);
        let call = steps.call_async("test", async { Ok::<_, ()>(()) }, || ());
        assert!(tokio::time::timeout(Duration::from_millis(5), call).await.is_err());
        steps.buried().await;
        assert_eq!(steps.names(), ["test"]);
    }
}
