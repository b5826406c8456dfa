//! The input gate of a task: one bounded queue for each upstream task, read by one thread.
//!
//! Invariants:
//! * a sender waits while its channel holds [`CHANNEL_BATCHES_MAX`] batches: this is the backpressure;
//! * a blocked channel (its barrier is aligned, others' are not) is not read and keeps its order;
//! * control messages come before elements, so that a cancel or an aborted checkpoint is not stuck behind data;
//! * a barrier that may overtake is announced when it is put into its channel, and announcements come before elements;
//! * what a checkpoint held in flight is read before anything that was sent since;
//! * after [`Gate::close`] nobody waits: senders and the reader are told at once.

use super::{Barrier, Control, Element};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tidegate_core::checkpoint::CheckpointId;
use tidegate_core::limits::CHANNEL_BATCHES_MAX;

pub struct Gate {
    inner: Mutex<Inner>,
    readable: Condvar,
    writable: Condvar,
    /// The same as `closed`, for guest calls that run on.
    stopped: Arc<AtomicBool>,
    /// The gates of the tasks that send to this one, by channel.
    senders: Vec<Arc<Gate>>,
}

struct Inner {
    control: VecDeque<Control>,
    /// Barriers that stand in their channels and may overtake, in the order of their arrival.
    announced: VecDeque<(usize, Barrier)>,
    /// What the restored checkpoint had in flight, with the channel that it goes to. Nothing is ever added.
    restored: VecDeque<(usize, Element)>,
    /// Somebody downstream has room again.
    poked: bool,
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
    /// Its sender does not wait in `send` but at its own gate, and wants to be told when there is room.
    wanted: bool,
}

#[derive(Debug)]
pub enum Received {
    Control(Control),
    /// A barrier was put into this channel and may overtake.
    Announced(usize, Barrier),
    Element(usize, Element),
    /// From the restored checkpoint: it was recorded, as a whole, with the first barrier that overtook it.
    Restored(usize, Element),
    /// Nothing came before the deadline.
    Nothing,
    Closed,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub waited: bool,
    /// The channel has all the batches that it may have.
    pub is_full: bool,
}

/// The job is being torn down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl Gate {
    /// One channel for each sender. A task without senders has a source.
    pub fn new(senders: Vec<Arc<Gate>>, restored: Vec<(usize, Element)>) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                control: VecDeque::new(),
                announced: VecDeque::new(),
                restored: restored.into(),
                poked: false,
                channels: senders.iter().map(|_| Channel::default()).collect(),
                next: 0,
                reader_waits: false,
                writers_wait: 0,
                closed: false,
            }),
            readable: Condvar::new(),
            writable: Condvar::new(),
            stopped: Arc::default(),
            senders,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the channel is full. True in the answer: it had to wait.
    pub fn send(&self, channel: usize, element: Element) -> Result<bool, Closed> {
        Ok(self.send_telling(channel, element, 0, || {})?.waited)
    }

    /// For a sender that goes on though the channel is full, by so many batches: it asks [`has_room`](Self::has_room) before it begins
    /// anything new. Calls `full` before it waits.
    pub fn send_telling(&self, channel: usize, element: Element, overdraft: usize, full: impl FnOnce()) -> Result<Sent, Closed> {
        let mut full = Some(full);
        let mut inner = self.lock();
        let is_batch = matches!(element, Element::Batch(_));
        let mut waited = false;
        while is_batch && inner.channels[channel].batches >= CHANNEL_BATCHES_MAX + overdraft && !inner.closed {
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
        self.push(&mut inner, channel, element);
        Ok(Sent { waited, is_full: inner.channels[channel].batches >= CHANNEL_BATCHES_MAX })
    }

    fn push(&self, inner: &mut Inner, channel: usize, element: Element) {
        let queue = &mut inner.channels[channel];
        let mut wakes = !queue.blocked;
        match &element {
            Element::Batch(_) => queue.batches += 1,
            Element::Barrier(barrier) if barrier.overtakes_at_us.is_some() => {
                inner.announced.push_back((channel, *barrier));
                wakes = true;
            }
            Element::Barrier(_) | Element::Watermark(_) | Element::Idle => {}
        }
        queue.elements.push_back(element);
        if inner.reader_waits && wakes {
            self.readable.notify_one();
        }
    }

    /// Whether half of a channel is free. If not, the gate of its sender is poked once it is.
    pub fn has_room(&self, channel: usize) -> bool {
        let mut inner = self.lock();
        let queue = &mut inner.channels[channel];
        queue.wanted = queue.batches > CHANNEL_BATCHES_MAX / 2;
        !queue.wanted || inner.closed
    }

    fn poke(&self) {
        self.lock().poked = true;
        self.readable.notify_one();
    }

    pub fn control(&self, control: Control) {
        let mut inner = self.lock();
        inner.control.push_back(control);
        self.readable.notify_one();
    }

    /// The next control message, announcement, or element of a channel that is not blocked; waits until `deadline`, or for ever.
    /// Without `takes_elements` these stay where they are, and a poke of somebody downstream ends the waiting.
    pub fn receive(&self, deadline: Option<Instant>, takes_elements: bool) -> Received {
        let mut inner = self.lock();
        loop {
            if let Some(control) = inner.control.pop_front() {
                return Received::Control(control);
            }
            if inner.closed {
                return Received::Closed;
            }
            if let Some((channel, barrier)) = inner.announced.pop_front() {
                return Received::Announced(channel, barrier);
            }
            if std::mem::take(&mut inner.poked) && !takes_elements {
                return Received::Nothing;
            }
            if takes_elements && let Some((channel, element)) = inner.restored.pop_front() {
                return Received::Restored(channel, element);
            }
            let channels = if takes_elements { inner.channels.len() } else { 0 };
            for offset in 0..channels {
                let at = (inner.next + offset) % channels;
                if inner.channels[at].blocked {
                    continue;
                }
                if let Some(element) = inner.channels[at].elements.pop_front() {
                    inner.next = (at + 1) % channels;
                    if matches!(element, Element::Batch(_)) {
                        let queue = &mut inner.channels[at];
                        queue.batches -= 1;
                        // Woken when half of the room is free: one wake-up for several batches.
                        if queue.batches <= CHANNEL_BATCHES_MAX / 2 {
                            let wanted = std::mem::take(&mut queue.wanted);
                            if inner.writers_wait > 0 {
                                self.writable.notify_all();
                            }
                            if wanted {
                                // Never two gates locked at once.
                                drop(inner);
                                self.senders[at].poke();
                            }
                        }
                    }
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
        inner.control.is_empty()
            && inner.announced.is_empty()
            && inner.restored.is_empty()
            && inner.channels.iter().all(|channel| channel.blocked || channel.elements.is_empty())
    }

    /// Takes the barrier of `checkpoint`, and the older ones in front of it, out of a channel, and shows what else stands there. That
    /// stays to be read.
    pub fn overtake(&self, channel: usize, checkpoint: CheckpointId, mut show: impl FnMut(&Element)) -> Barrier {
        let mut inner = self.lock();
        let elements = &mut inner.channels[channel].elements;
        let is_it = |element: &Element| matches!(element, Element::Barrier(barrier) if barrier.checkpoint == checkpoint);
        let at = elements.iter().position(is_it).expect("BUG: an announced barrier is not in its channel");
        let Element::Barrier(barrier) = elements[at] else { unreachable!("BUG: it was a barrier a moment ago") };
        elements.range(..at).filter(|element| !matches!(element, Element::Barrier(_))).for_each(&mut show);
        let mut place = 0;
        elements.retain(|element| {
            place += 1;
            place > at + 1 || !matches!(element, Element::Barrier(_))
        });
        // Of those that left with it, nobody needs to hear any more.
        inner.announced.retain(|(other, barrier)| *other != channel || barrier.checkpoint > checkpoint);
        barrier
    }

    /// Shows what is left of the restored checkpoint's elements.
    pub fn restored(&self, mut show: impl FnMut(usize, &Element)) {
        self.lock().restored.iter().for_each(|(channel, element)| show(*channel, element));
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
    use tidegate_core::checkpoint::CheckpointKind;
    use tidegate_core::limits::CHANNEL_OVERDRAFT_BATCHES_MAX;
    use tidegate_core::row::Rows;

    fn batch() -> Element {
        Element::Batch(Rows::default())
    }

    fn gate(channels: usize) -> Arc<Gate> {
        let source = || Gate::new(Vec::new(), Vec::new());
        Gate::new((0..channels).map(|_| source()).collect(), Vec::new())
    }

    fn barrier(checkpoint: CheckpointId, overtakes_at_us: Option<u64>) -> Barrier {
        Barrier { checkpoint, kind: CheckpointKind::Checkpoint, full: false, stop: None, overtakes_at_us }
    }

    #[test]
    fn a_full_channel_holds_its_sender_until_half_of_it_is_read() {
        let gate = gate(1);
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
            assert!(matches!(gate.receive(None, true), Received::Element(0, _)));
        }
        assert_eq!(sender.join().unwrap(), Ok(true));
    }

    #[test]
    fn a_blocked_channel_keeps_its_elements_and_their_order() {
        let gate = gate(2);
        gate.send(0, Element::Watermark(1)).unwrap();
        gate.send(0, Element::Watermark(2)).unwrap();
        gate.block(0);
        gate.send(1, Element::Watermark(3)).unwrap();
        assert!(matches!(gate.receive(None, true), Received::Element(1, Element::Watermark(3))));
        assert!(matches!(gate.receive(Some(Instant::now()), true), Received::Nothing));
        gate.unblock(&[0]);
        assert!(matches!(gate.receive(None, true), Received::Element(0, Element::Watermark(1))));
        assert!(matches!(gate.receive(None, true), Received::Element(0, Element::Watermark(2))));
    }

    #[test]
    fn control_overtakes_elements_and_closing_frees_everyone() {
        let gate = gate(1);
        for _ in 0..CHANNEL_BATCHES_MAX {
            gate.send(0, batch()).unwrap();
        }
        gate.control(Control::AbortCheckpoint(7));
        assert!(matches!(gate.receive(None, true), Received::Control(Control::AbortCheckpoint(7))));
        let sender = std::thread::spawn({
            let gate = Arc::clone(&gate);
            move || gate.send(0, batch())
        });
        std::thread::sleep(Duration::from_millis(5));
        gate.close();
        assert_eq!(sender.join().unwrap(), Err(Closed));
        assert!(matches!(gate.receive(None, true), Received::Closed));
    }

    #[test]
    fn a_barrier_that_may_overtake_is_announced_before_what_it_stands_behind() {
        let gate = gate(2);
        gate.send(0, Element::Watermark(1)).unwrap();
        gate.send(0, batch()).unwrap();
        gate.send(0, Element::Barrier(barrier(3, None))).unwrap();
        gate.send(0, Element::Barrier(barrier(4, Some(0)))).unwrap();
        gate.send(0, Element::Watermark(2)).unwrap();
        let Received::Announced(0, announced) = gate.receive(None, true) else { panic!("no announcement") };
        assert_eq!(announced.checkpoint, 4);
        let mut shown = Vec::new();
        gate.overtake(0, 4, |element| shown.push(format!("{element:?}")));
        assert_eq!(shown.len(), 2, "the barriers are gone: {shown:?}");
        assert!(matches!(gate.receive(None, true), Received::Element(0, Element::Watermark(1))));
        assert!(matches!(gate.receive(None, true), Received::Element(0, Element::Batch(_))));
        assert!(matches!(gate.receive(None, true), Received::Element(0, Element::Watermark(2))));
        assert!(matches!(gate.receive(Some(Instant::now()), true), Received::Nothing));
    }

    #[test]
    fn what_was_restored_comes_before_what_was_sent() {
        let source = Gate::new(Vec::new(), Vec::new());
        let gate = Gate::new(vec![source], vec![(0, Element::Watermark(1)), (0, batch())]);
        gate.send(0, Element::Watermark(2)).unwrap();
        assert!(matches!(gate.receive(None, true), Received::Restored(0, Element::Watermark(1))));
        let mut left = 0;
        gate.restored(|_, _| left += 1);
        assert_eq!(left, 1);
        assert!(matches!(gate.receive(None, true), Received::Restored(0, Element::Batch(_))));
        assert!(matches!(gate.receive(None, true), Received::Element(0, Element::Watermark(2))));
    }

    #[test]
    fn a_sender_with_overdraft_goes_on_and_is_poked_at_its_own_gate_when_half_is_read() {
        let source = Gate::new(Vec::new(), Vec::new());
        let gate = Gate::new(vec![Arc::clone(&source)], Vec::new());
        for sent in 1..=CHANNEL_BATCHES_MAX + CHANNEL_OVERDRAFT_BATCHES_MAX {
            let expected = Sent { waited: false, is_full: sent >= CHANNEL_BATCHES_MAX };
            assert_eq!(gate.send_telling(0, batch(), CHANNEL_OVERDRAFT_BATCHES_MAX, || {}), Ok(expected));
        }
        assert!(!gate.has_room(0));
        assert!(matches!(source.receive(Some(Instant::now()), false), Received::Nothing));
        for _ in 0..CHANNEL_BATCHES_MAX + CHANNEL_OVERDRAFT_BATCHES_MAX - CHANNEL_BATCHES_MAX / 2 {
            assert!(!source.lock().poked);
            gate.receive(None, true);
        }
        assert!(matches!(source.receive(None, false), Received::Nothing), "poked, else it would wait for ever");
        assert!(gate.has_room(0));
    }
}
