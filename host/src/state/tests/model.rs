//! Random calls, freezes, drains and restores against plain maps.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_core::row;

const KEYS: usize = 40;

/// Short, at the bound of what lies inline, and long.
fn key(number: usize) -> Vec<u8> {
    let mut key = format!("k{number}").into_bytes();
    key.resize(key.len() + [0, 0, 5, 13, 14, 40][number % 6], b'.');
    key
}

fn group(key: &[u8]) -> u32 {
    key_group::group_of(key_group::hash(key), GROUPS)
}

type Due = BTreeSet<(i64, u64, Vec<u8>, u64)>;

#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    values: BTreeMap<(u16, Vec<u8>), Vec<u8>>,
    sums: BTreeMap<Vec<u8>, i64>,
    maps: BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>>,
    lists: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    timers: [Due; 2],
}

impl Model {
    /// Reads everything through the interface that guests have.
    fn of(state: &mut KeyedState, owned: &Range<u32>) -> Self {
        let keys: Vec<_> = (0..KEYS).map(key).filter(|key| owned.contains(&group(key))).collect();
        let mut model = Self::default();
        begin(state, &keys);
        let (pairs, notes) = (state.value_load_fixed(PAIR).unwrap(), state.value_load(NOTE).unwrap());
        let (blocks, sums) = (state.value_load_fixed(BLOCK).unwrap(), state.reducing_load(SUM).unwrap());
        for (slot, key) in (0..).zip(&keys) {
            let at = slot as usize;
            let mut put = |state: StateId, value: Option<&[u8]>, loaded: &[u8], absent: &[u8]| {
                assert_eq!(value.unwrap_or(absent), loaded, "load and get disagree");
                if let Some(value) = value {
                    model.values.insert((state.0, key.clone()), value.to_vec());
                }
            };
            put(PAIR, state.value_get(PAIR, slot).unwrap(), &pairs[at * 16..][..16], &[0; 16]);
            put(NOTE, state.value_get(NOTE, slot).unwrap(), notes.get(at), &[]);
            put(BLOCK, state.value_get(BLOCK, slot).unwrap(), &blocks[at * 300..][..300], &[0; 300]);
            let sum = state.reducing_get(SUM, slot).unwrap();
            assert_eq!(sum.unwrap_or(0), sums[at]);
            model.sums.extend(sum.map(|sum| (key.clone(), sum)));
            let rows = state.map_scan(WINDOW, slot, None, None, 10_000).unwrap();
            assert_eq!(rows.is_empty(), state.map_is_empty(WINDOW, slot).unwrap());
            for row in row::iter(&rows) {
                model.maps.insert((key.clone(), row.key.to_vec()), row.value.unwrap().to_vec());
            }
            let list = state.list_get(LOG, slot, 0, 10_000).unwrap();
            if !list.is_empty() {
                model.lists.insert(key.clone(), list.iter().map(<[u8]>::to_vec).collect());
            }
            assert_eq!(state.list_length(LOG, slot).unwrap() as usize, list.len());
        }
        state.rollback();
        for domain in [TimeDomain::EventTime, TimeDomain::ProcessingTime] {
            if state.begin_timers(domain, i64::MAX, usize::MAX, at(0)) {
                model.timers[domain_index(domain)] = due(state);
                state.rollback();
            }
        }
        model
    }

    fn owned(&self, owned: &Range<u32>) -> Self {
        let mut model = self.clone();
        let is_owned = |key: &[u8]| owned.contains(&group(key));
        model.values.retain(|(_, key), _| is_owned(key));
        model.sums.retain(|key, _| is_owned(key));
        model.maps.retain(|(key, _), _| is_owned(key));
        model.lists.retain(|key, _| is_owned(key));
        model.timers.iter_mut().for_each(|due| due.retain(|(_, _, key, _)| is_owned(key)));
        model
    }

    fn entries(&self) -> usize {
        let timers: usize = self.timers.iter().map(BTreeSet::len).sum();
        self.values.len() + self.sums.len() + self.maps.len() + self.lists.len() + timers
    }

    fn keys(&self) -> usize {
        let values = self.values.keys().map(|(_, key)| key).chain(self.sums.keys());
        let maps = self.maps.keys().map(|(key, _)| key).chain(self.lists.keys());
        let timers = self.timers.iter().flatten().map(|(_, _, key, _)| key);
        values.chain(maps).chain(timers).collect::<BTreeSet<_>>().len()
    }
}

/// What a timer call delivers, in a form that outlives it.
fn due(state: &KeyedState) -> Due {
    let due = state.due();
    assert!(due.timers.is_sorted(), "timers out of order");
    (0..due.slots.len())
        .map(|at| {
            let key = state.key(due.slots[at]).to_vec();
            (due.times[at], key_group::hash(&key), key, due.tags[at])
        })
        .collect()
}

#[derive(Debug, Clone)]
enum Op {
    Value { state: StateId, key: usize, value: u8 },
    StoreAll(u8),
    StoreSome { keys: Vec<usize>, value: u8 },
    Sum { key: usize, value: Option<i64> },
    MapPut { key: usize, map_key: u8, value: u8 },
    MapRange { key: usize, first: Option<u8>, last: Option<u8> },
    MapMany { key: usize, map_key: u8 },
    ListAdd { key: usize, value: u8 },
    ListReplace { key: usize, values: Vec<u8> },
    Timer { key: usize, domain: usize, time: i64, tag: u64, set: bool },
}

const DOMAINS: [TimeDomain; 2] = [TimeDomain::EventTime, TimeDomain::ProcessingTime];

/// A value that tells states and lengths apart; 0 is the empty one.
fn value_of(state: StateId, value: u8) -> Vec<u8> {
    match (state, value) {
        (_, 0) => Vec::new(),
        (PAIR, _) => vec![value; 16],
        (BLOCK, _) => vec![value; 300],
        _ => vec![value; 1 + usize::from(value % 50)],
    }
}

fn map_key(number: u8) -> Vec<u8> {
    vec![number; 1 + usize::from(number % 3) * 15]
}

impl Op {
    fn apply(&self, state: &mut KeyedState, model: &mut Model) {
        let keys = state.keys_column();
        let slot_of = |number: usize| number % keys.len();
        let name_of = |number: usize| keys.get(slot_of(number)).to_vec();
        let set = |model: &mut Model, state: StateId, key: Vec<u8>, value: Vec<u8>| match value.is_empty() {
            true => model.values.remove(&(state.0, key)),
            false => model.values.insert((state.0, key), value),
        };
        match self {
            Self::Value { state: id, key, value } => {
                let value = value_of(*id, *value);
                state.value_put(*id, slot_of(*key) as u32, &value).unwrap();
                set(model, *id, name_of(*key), value);
            }
            Self::StoreAll(value) => {
                let values: Vec<u8> = (0..keys.len()).flat_map(|at| [value.wrapping_add(at as u8); 16]).collect();
                state.value_store_all_fixed(PAIR, &values).unwrap();
                for (key, value) in keys.iter().zip(values.chunks(16)) {
                    set(model, PAIR, key.to_vec(), value.to_vec());
                }
            }
            Self::StoreSome { keys: numbers, value } => {
                let slots: Vec<u32> = numbers.iter().map(|number| slot_of(*number) as u32).collect();
                let values: Vec<Vec<u8>> = (0..slots.len()).map(|at| value_of(NOTE, value.wrapping_add(at as u8))).collect();
                state.value_store(NOTE, &slots, &column(&values)).unwrap();
                let blocks: Vec<u8> = (0..slots.len()).flat_map(|at| [value.wrapping_add(at as u8); 300]).collect();
                state.value_store_fixed(BLOCK, &slots, &blocks).unwrap();
                for ((number, value), block) in numbers.iter().zip(values).zip(blocks.chunks(300)) {
                    set(model, NOTE, name_of(*number), value);
                    set(model, BLOCK, name_of(*number), block.to_vec());
                }
            }
            Self::Sum { key, value: Some(value) } => {
                let slot = slot_of(*key) as u32;
                let new = state.reducing_add_many(SUM, &[slot, slot], &[*value, 1], true).unwrap();
                let sum = model.sums.entry(name_of(*key)).or_default();
                *sum = sum.wrapping_add(*value).wrapping_add(1);
                assert_eq!(new, [sum.wrapping_sub(1), *sum]);
            }
            Self::Sum { key, value: None } => {
                state.reducing_clear(SUM, slot_of(*key) as u32).unwrap();
                model.sums.remove(&name_of(*key));
            }
            Self::MapPut { key, map_key: number, value } => {
                let (map_key, value) = (map_key(*number), value_of(WINDOW, *value));
                let slot = slot_of(*key) as u32;
                state.map_put(WINDOW, slot, &map_key, &value).unwrap();
                assert_eq!(state.map_contains(WINDOW, slot, &map_key).unwrap(), !value.is_empty());
                match value.is_empty() {
                    true => model.maps.remove(&(name_of(*key), map_key)),
                    false => model.maps.insert((name_of(*key), map_key), value),
                };
            }
            Self::MapRange { key, first, last } => {
                let (first, last) = (first.map(map_key), last.map(map_key));
                state.map_remove_range(WINDOW, slot_of(*key) as u32, first.as_deref(), last.as_deref()).unwrap();
                let name = name_of(*key);
                model.maps.retain(|(key, map_key), _| {
                    let is_in =
                        first.as_ref().is_none_or(|first| first <= map_key) && last.as_ref().is_none_or(|last| map_key < last);
                    *key != name || !is_in
                });
            }
            Self::MapMany { key, map_key: number } => {
                let map_keys: Vec<_> = (0..24).map(|n| map_key(number.wrapping_add(n * 3))).collect();
                let slots = vec![slot_of(*key) as u32; map_keys.len()];
                let values: Vec<_> = (1..=24).map(|n| value_of(WINDOW, n)).collect();
                let (keys, values) = (column(&map_keys), column(&values));
                state.map_store_many(WINDOW, &slots, &keys, &values).unwrap();
                assert_eq!(state.map_load_many(WINDOW, &slots, &keys).unwrap(), values);
                for (map_key, value) in map_keys.into_iter().zip(values.iter()) {
                    model.maps.insert((name_of(*key), map_key), value.to_vec());
                }
            }
            Self::ListAdd { key, value } => {
                let value = value_of(LOG, *value);
                let slot = slot_of(*key) as u32;
                state.list_add_many(LOG, &[slot, slot], &column(&[&value, &value])).unwrap();
                if !value.is_empty() {
                    model.lists.entry(name_of(*key)).or_default().extend([value.clone(), value]);
                }
            }
            Self::ListReplace { key, values } => {
                let mut values: Vec<_> = values.iter().map(|value| value_of(LOG, *value)).collect();
                state.list_replace(LOG, slot_of(*key) as u32, &column(&values)).unwrap();
                values.retain(|value| !value.is_empty());
                match values.is_empty() {
                    true => model.lists.remove(&name_of(*key)),
                    false => model.lists.insert(name_of(*key), values),
                };
            }
            Self::Timer { key, domain, time, tag, set } => {
                let (slot, name) = (slot_of(*key) as u32, name_of(*key));
                let timer = (*time, key_group::hash(&name), name, *tag);
                if *set {
                    state.set_timers(DOMAINS[*domain], &[slot], &[*time], &[*tag]).unwrap();
                    model.timers[*domain].insert(timer);
                } else {
                    state.cancel_timer(slot, DOMAINS[*domain], *time, *tag).unwrap();
                    model.timers[*domain].remove(&timer);
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Call {
        keys: Vec<usize>,
        ops: Vec<Op>,
        commit: bool,
    },
    Fire {
        domain: usize,
        up_to: i64,
        max: usize,
        ops: Vec<Op>,
        commit: bool,
    },
    Freeze {
        full: bool,
    },
    Drain {
        budget: usize,
    },
    /// Goes on with what the last snapshot holds.
    Crash,
}

fn any_op() -> impl Strategy<Value = Op> {
    let (key, byte) = (0..KEYS, any::<u8>());
    let state = prop::sample::select(vec![PAIR, NOTE, BLOCK]);
    let small = 0u8..12;
    prop_oneof![
        4 => (state, key.clone(), prop_oneof![Just(0), any::<u8>()])
            .prop_map(|(state, key, value)| Op::Value { state, key, value }),
        1 => byte.prop_map(Op::StoreAll),
        1 => (prop::collection::vec(key.clone(), 0..5), any::<u8>()).prop_map(|(keys, value)| Op::StoreSome { keys, value }),
        2 => (key.clone(), prop::option::of(any::<i64>())).prop_map(|(key, value)| Op::Sum { key, value }),
        4 => (key.clone(), small.clone(), prop_oneof![Just(0), any::<u8>()])
            .prop_map(|(key, map_key, value)| Op::MapPut { key, map_key, value }),
        1 => (key.clone(), prop::option::of(small.clone()), prop::option::of(small))
            .prop_map(|(key, first, last)| Op::MapRange { key, first, last }),
        1 => (key.clone(), 0u8..4).prop_map(|(key, map_key)| Op::MapMany { key, map_key }),
        3 => (key.clone(), byte).prop_map(|(key, value)| Op::ListAdd { key, value }),
        1 => (key.clone(), prop::collection::vec(byte, 0..3)).prop_map(|(key, values)| Op::ListReplace { key, values }),
        4 => (key, 0usize..2, 0i64..6, 0u64..3, prop::bool::weighted(0.6))
            .prop_map(|(key, domain, time, tag, set)| Op::Timer { key, domain, time, tag, set }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let ops = || prop::collection::vec(any_op(), 0..8);
    let commit = || prop::bool::weighted(0.7);
    prop_oneof![
        8 => (prop::collection::vec(0..KEYS, 1..12), ops(), commit())
            .prop_map(|(keys, ops, commit)| Step::Call { keys, ops, commit }),
        2 => (0usize..2, 0i64..6, 1usize..5, ops(), commit())
            .prop_map(|(domain, up_to, max, ops, commit)| Step::Fire { domain, up_to, max, ops, commit }),
        2 => prop::bool::weighted(0.25).prop_map(|full| Step::Freeze { full }),
        4 => (1usize..20).prop_map(|budget| Step::Drain { budget }),
        1 => Just(Step::Crash),
    ]
}

/// The system under test, its oracle, and the snapshots between them.
struct World {
    state: KeyedState,
    model: Model,
    /// What snapshots under way must turn out to hold.
    frozen: Vec<Model>,
    chain: Vec<Segment>,
    restored: Model,
}

impl World {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Call { keys, ops, commit } => {
                let keys: Vec<_> = keys.iter().map(|number| key(*number)).collect();
                begin(&mut self.state, &keys);
                for (key, slot) in keys.iter().zip(self.state.slots()) {
                    assert_eq!(self.state.key(*slot), key);
                }
                self.call(ops, *commit, self.model.clone());
            }
            Step::Fire { domain, up_to, max, ops, commit } => {
                let expected: Due =
                    self.model.timers[*domain].iter().filter(|timer| timer.0 <= *up_to).take(*max).cloned().collect();
                let began = self.state.begin_timers(DOMAINS[*domain], *up_to, *max, at(0));
                assert_eq!(began, !expected.is_empty());
                if began {
                    assert_eq!(due(&self.state), expected);
                    let before = self.model.clone();
                    self.model.timers[*domain].retain(|timer| !expected.contains(timer));
                    self.call(ops, *commit, before);
                }
            }
            Step::Freeze { full } => {
                self.state.freeze(*full);
                self.frozen.push(self.model.clone());
            }
            Step::Drain { budget } => self.drain(*budget),
            Step::Crash => {
                while self.state.is_draining() {
                    self.drain(7);
                }
                if !self.chain.is_empty() {
                    self.state = self.restore(0..GROUPS, &self.chain);
                    self.model = self.restored.clone();
                }
            }
        }
        assert_eq!(self.state.live_entries() as usize, self.model.entries(), "live entries");
    }

    fn call(&mut self, ops: &[Op], commit: bool, before: Model) {
        ops.iter().for_each(|op| op.apply(&mut self.state, &mut self.model));
        if commit {
            self.state.commit();
        } else {
            self.state.rollback();
            self.model = before;
        }
    }

    fn drain(&mut self, budget: usize) {
        let Some(frozen) = self.state.drain(budget) else { return };
        let expected = self.frozen.remove(0);
        if frozen.is_full() {
            self.chain.clear();
        }
        self.chain.push(frozen.write_segment());
        assert_eq!(Model::of(&mut self.restore(0..GROUPS, &self.chain), &(0..GROUPS)), expected);

        let bytes: Vec<&[u8]> = self.chain.iter().map(|segment| &segment.bytes[..]).collect();
        let merged = merge_segments(&bytes, true).unwrap();
        assert!(merged.full && merged.entries as usize == expected.entries(), "a full segment holds just what is there");
        assert_eq!(Model::of(&mut self.restore(0..GROUPS, &[merged]), &(0..GROUPS)), expected);

        let cut = self.chain.len() / 2;
        let tail = merge_segments(&bytes[cut..], false).unwrap();
        let mut partly: Vec<_> = self.chain[..cut].to_vec();
        partly.push(tail);
        assert_eq!(Model::of(&mut self.restore(0..GROUPS, &partly), &(0..GROUPS)), expected);

        // Two tasks, and one again.
        let halves = [0..3, 3..GROUPS].map(|owned| {
            let mut half = self.restore(owned.clone(), &self.chain);
            assert_eq!(Model::of(&mut half, &owned), expected.owned(&owned));
            snapshot(&mut half, true)
        });
        assert_eq!(Model::of(&mut self.restore(0..GROUPS, &halves), &(0..GROUPS)), expected);
        self.restored = expected;
    }

    fn restore(&self, owned: Range<u32>, chain: &[Segment]) -> KeyedState {
        let mut state = state_of(&declarations(), owned);
        chain.iter().for_each(|segment| state.restore(&segment.bytes).unwrap());
        state
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_snapshot_is_the_state_as_of_its_freeze(steps in prop::collection::vec(any_step(), 1..80)) {
        let (model, restored) = (Model::default(), Model::default());
        let mut world = World { state: state(), model, frozen: Vec::new(), chain: Vec::new(), restored };
        for step in &steps {
            world.step(step);
            // As costly as everything else together, and what it finds a later snapshot finds too.
            if matches!(step, Step::Crash | Step::Call { commit: false, .. }) {
                prop_assert_eq!(&Model::of(&mut world.state, &(0..GROUPS)), &world.model);
            }
        }
        while world.state.is_draining() {
            world.drain(5);
        }
        prop_assert_eq!(&Model::of(&mut world.state, &(0..GROUPS)), &world.model);

        // Twice: what had to be kept for tombstones is free after a drain.
        world.step(&Step::Freeze { full: false });
        while world.state.is_draining() {
            world.drain(5);
        }
        prop_assert_eq!(world.state.live_keys() as usize, world.model.keys(), "keys that nothing refers to");
        prop_assert_eq!(world.state.dirty_entries(), 0);
    }
}
