//! The input gate of a task: one bounded queue for each upstream task, read by one thread.
//!
//! Invariants:
//! * a sender waits while its channel holds [`CHANNEL_BATCHES_MAX`] batches: this is the backpressure;
//! * a blocked channel (its barrier is aligned, others' are not) is not read and keeps its order;
//! * control messages come before elements, so that a cancel or an aborted checkpoint is not stuck behind data;
//! * after [`Gate::close`] nobody waits: senders and the reader are told at once.

use super::{Control, Element};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tidegate_core::limits::CHANNEL_BATCHES_MAX;

pub struct Gate {
    inner: Mutex<Inner>,
    readable: Condvar,
    writable: Condvar,
    /// The same as `closed`, for guest calls that run on.
    stopped: Arc<AtomicBool>,
}

struct Inner {
    control: VecDeque<Control>,
    channels: Vec<Channel>,
    /// Where the reader goes on, so that no channel starves.
    next: usize,
    reader_waits: bool,
    writers_wait: usize,
    closed: bool,
}

#[derive(Default)]
struct Channel {
    elements: VecDeque<Element>,
    batches: usize,
    blocked: bool,
}

#[derive(Debug)]
pub enum Received {
    Control(Control),
    Element(usize, Element),
    /// Nothing came before the deadline.
    Nothing,
    Closed,
}

/// The job is being torn down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl Gate {
    pub fn new(channels: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                control: VecDeque::new(),
                channels: (0..channels).map(|_| Channel::default()).collect(),
                next: 0,
                reader_waits: false,
                writers_wait: 0,
                closed: false,
            }),
            readable: Condvar::new(),
            writable: Condvar::new(),
            stopped: Arc::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the channel is full. True in the answer: it had to wait.
    pub fn send(&self, channel: usize, element: Element) -> Result<bool, Closed> {
        self.send_telling(channel, element, || {})
    }

    /// Calls `full` before it waits.
    pub fn send_telling(&self, channel: usize, element: Element, full: impl FnOnce()) -> Result<bool, Closed> {
        let mut full = Some(full);
        let mut inner = self.lock();
        let is_batch = matches!(element, Element::Batch(_));
        let mut waited = false;
        while is_batch && inner.channels[channel].batches >= CHANNEL_BATCHES_MAX && !inner.closed {
            waited = true;
            if let Some(full) = full.take() {
                full();
            }
            inner.writers_wait += 1;
            inner = self.writable.wait(inner).unwrap_or_else(PoisonError::into_inner);
            inner.writers_wait -= 1;
        }
        if inner.closed {
            return Err(Closed);
        }
        let queue = &mut inner.channels[channel];
        queue.batches += usize::from(is_batch);
        queue.elements.push_back(element);
        if inner.reader_waits && !inner.channels[channel].blocked {
            self.readable.notify_one();
        }
        Ok(waited)
    }

    pub fn control(&self, control: Control) {
        let mut inner = self.lock();
        inner.control.push_back(control);
        self.readable.notify_one();
    }

    /// The next control message or element of a channel that is not blocked; waits until `deadline`, or for ever.
    pub fn receive(&self, deadline: Option<Instant>) -> Received {
        let mut inner = self.lock();
        loop {
            if let Some(control) = inner.control.pop_front() {
                return Received::Control(control);
            }
            if inner.closed {
                return Received::Closed;
            }
            let channels = inner.channels.len();
            for offset in 0..channels {
                let at = (inner.next + offset) % channels;
                if inner.channels[at].blocked {
                    continue;
                }
                if let Some(element) = inner.channels[at].elements.pop_front() {
                    if matches!(element, Element::Batch(_)) {
                        let queue = &mut inner.channels[at];
                        queue.batches -= 1;
                        // Woken when half of the room is free: one wake-up for several batches.
                        if inner.writers_wait > 0 && inner.channels[at].batches <= CHANNEL_BATCHES_MAX / 2 {
                            self.writable.notify_all();
                        }
                    }
                    inner.next = (at + 1) % channels;
                    return Received::Element(at, element);
                }
            }
            inner.reader_waits = true;
            match deadline {
                None => inner = self.readable.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let now = Instant::now();
                    if now >= deadline {
                        inner.reader_waits = false;
                        return Received::Nothing;
                    }
                    (inner, _) = self.readable.wait_timeout(inner, deadline - now).unwrap_or_else(PoisonError::into_inner);
                }
            }
            inner.reader_waits = false;
        }
    }

    /// Whether an element could be read at once: if not, what is buffered may as well be shipped.
    pub fn is_idle(&self) -> bool {
        let inner = self.lock();
        inner.control.is_empty() && inner.channels.iter().all(|channel| channel.blocked || channel.elements.is_empty())
    }

    pub fn block(&self, channel: usize) {
        self.lock().channels[channel].blocked = true;
    }

    pub fn unblock(&self, channels: &[usize]) {
        let mut inner = self.lock();
        for channel in channels {
            inner.channels[*channel].blocked = false;
        }
    }

    /// Batches that wait, by channel: what backpressure looks like from outside.
    pub fn queued(&self) -> Vec<usize> {
        self.lock().channels.iter().map(|channel| channel.batches).collect()
    }

    /// Set when the gate is closed.
    pub fn stopped(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopped)
    }

    pub fn close(&self) {
        self.lock().closed = true;
        self.stopped.store(true, Ordering::Relaxed);
        self.readable.notify_all();
        self.writable.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tidegate_core::row::Rows;

    fn batch() -> Element {
        Element::Batch(Rows::default())
    }

    #[test]
    fn a_full_channel_holds_its_sender_until_half_of_it_is_read() {
        let gate = Gate::new(1);
        for _ in 0..CHANNEL_BATCHES_MAX {
            assert_eq!(gate.send(0, batch()), Ok(false));
        }
        let sender = std::thread::spawn({
            let gate = Arc::clone(&gate);
            move || gate.send(0, batch())
        });
        while gate.lock().writers_wait == 0 {
            std::thread::yield_now();
        }
        for _ in 0..=CHANNEL_BATCHES_MAX {
            assert!(matches!(gate.receive(None), Received::Element(0, _)));
        }
        assert_eq!(sender.join().unwrap(), Ok(true));
    }

    #[test]
    fn a_blocked_channel_keeps_its_elements_and_their_order() {
        let gate = Gate::new(2);
        gate.send(0, Element::Watermark(1)).unwrap();
        gate.send(0, Element::Watermark(2)).unwrap();
        gate.block(0);
        gate.send(1, Element::Watermark(3)).unwrap();
        assert!(matches!(gate.receive(None), Received::Element(1, Element::Watermark(3))));
        assert!(matches!(gate.receive(Some(Instant::now())), Received::Nothing));
        gate.unblock(&[0]);
        assert!(matches!(gate.receive(None), Received::Element(0, Element::Watermark(1))));
        assert!(matches!(gate.receive(None), Received::Element(0, Element::Watermark(2))));
    }

    #[test]
    fn control_overtakes_elements_and_closing_frees_everyone() {
        let gate = Gate::new(1);
        for _ in 0..CHANNEL_BATCHES_MAX {
            gate.send(0, batch()).unwrap();
        }
        gate.control(Control::AbortCheckpoint(7));
        assert!(matches!(gate.receive(None), Received::Control(Control::AbortCheckpoint(7))));
        let sender = std::thread::spawn({
            let gate = Arc::clone(&gate);
            move || gate.send(0, batch())
        });
        std::thread::sleep(Duration::from_millis(5));
        gate.close();
        assert_eq!(sender.join().unwrap(), Err(Closed));
        assert!(matches!(gate.receive(None), Received::Closed));
    }
}
