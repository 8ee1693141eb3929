//! The programs in plain differential on typed tuples, in its usual style: default spines, and operators for totally
//! ordered times where they exist.

use differential_dataflow::VecCollection;
use differential_dataflow::operators::{CountTotal, ThresholdTotal};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;
use timely::dataflow::ProbeHandle;
use timely::dataflow::operators::{Input, Probe};
use timely::worker::Worker;

use crate::drive::{Counted, Program, Tally, text_hash};
use crate::workload::{self, Case, Change};
use differential_dataflow::AsCollection;

type Time = u64;
type Diff = i64;
type Event = (String, String, i64);
type Customer = (String, String, String);

type Handle<D> = InputHandle<Time, CapacityContainerBuilder<Vec<(D, Time, Diff)>>>;

/// A running typed program.
pub struct Typed {
    events: Handle<Event>,
    customers: Handle<Customer>,
    probe: ProbeHandle<Time>,
    epoch: Time,
}

impl Program for Typed {
    type Events = Vec<(Event, Time, Diff)>;
    type Customers = Vec<(Customer, Time, Diff)>;

    fn new(worker: &mut Worker, case: Case, tally: &Tally) -> Self {
        let probe = ProbeHandle::new();
        let (events, customers) = worker.dataflow::<Time, _, _>(|scope| {
            let (events_in, events) = scope.new_input::<Vec<(Event, Time, Diff)>>();
            let (customers_in, customers) = scope.new_input::<Vec<(Customer, Time, Diff)>>();
            let events = events.as_collection();
            let customers = customers.as_collection();
            match case {
                Case::Sum => watch(sum(events), tally, &probe, |(key, (count, sum))| {
                    text_hash(&[key, &count.to_string(), &sum.to_string()])
                }),
                Case::Extremes => watch(extremes(events), tally, &probe, |(key, (count, sum, least, most))| {
                    let numbers = [count, sum, least, most].map(|number| number.to_string());
                    text_hash(&[key, &numbers[0], &numbers[1], &numbers[2], &numbers[3]])
                }),
                Case::Join => watch(
                    join(events, customers),
                    tally,
                    &probe,
                    |(key, item, quantity, name, city)| text_hash(&[key, item, &quantity.to_string(), name, city]),
                ),
                Case::Distinct => watch(distinct(events), tally, &probe, |(key, item)| text_hash(&[key, item])),
            }
            (events_in, customers_in)
        });
        Typed {
            events,
            customers,
            probe,
            epoch: 0,
        }
    }

    fn events(&self, changes: &[Change]) -> Self::Events {
        let event = |event: &workload::Event| (workload::key(event.key), workload::item(event.key), event.quantity);
        changes.iter().map(|(e, diff)| (event(e), self.epoch, *diff)).collect()
    }

    fn customers(&self, keys: std::ops::Range<u64>) -> Self::Customers {
        let customer = |key| (workload::key(key), workload::name(key), workload::city(key));
        keys.map(|key| (customer(key), self.epoch, 1)).collect()
    }

    fn send_events(&mut self, mut updates: Self::Events) {
        self.events.send_batch(&mut updates);
    }

    fn send_customers(&mut self, mut updates: Self::Customers) {
        self.customers.send_batch(&mut updates);
    }

    fn advance(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.events.advance_to(epoch);
        self.customers.advance_to(epoch);
    }

    fn is_behind(&self) -> bool {
        self.probe.less_than(&self.epoch)
    }
}

fn sum<'s>(events: VecCollection<'s, Time, Event, Diff>) -> VecCollection<'s, Time, (String, (Diff, i64)), Diff> {
    events
        .explode(|(key, _, quantity)| Some((key, (1, quantity))))
        .count_total_core()
}

/// Key, and its count, sum, minimum and maximum.
type Extremes = (String, (Diff, i64, i64, i64));

/// The values of a group are sorted, so one pass computes everything.
fn extremes<'s>(events: VecCollection<'s, Time, Event, Diff>) -> VecCollection<'s, Time, Extremes, Diff> {
    events
        .map(|(key, _, quantity)| (key, quantity))
        .reduce(|_key, values, output| {
            let count = values.iter().map(|(_, count)| count).sum();
            let sum = values.iter().map(|(quantity, count)| *quantity * count).sum();
            let (least, most) = (*values[0].0, *values[values.len() - 1].0);
            output.push(((count, sum, least, most), 1));
        })
}

type Joined = (String, String, i64, String, String);

fn join<'s>(
    events: VecCollection<'s, Time, Event, Diff>,
    customers: VecCollection<'s, Time, Customer, Diff>,
) -> VecCollection<'s, Time, Joined, Diff> {
    events.map(|(key, item, quantity)| (key, (item, quantity))).join_map(
        customers.map(|(key, name, city)| (key, (name, city))),
        |key, (item, quantity), (name, city)| (key.clone(), item.clone(), *quantity, name.clone(), city.clone()),
    )
}

/// This is not `distinct_total`, which keeps a row whose count has returned to zero.
fn distinct<'s>(events: VecCollection<'s, Time, Event, Diff>) -> VecCollection<'s, Time, (String, String), Diff> {
    events
        .map(|(key, item, _)| (key, item))
        .threshold_total(|_row, count| Diff::from(*count > 0))
}

fn watch<'s, D: Clone + 'static>(
    rows: VecCollection<'s, Time, D, Diff>,
    tally: &Tally,
    probe: &ProbeHandle<Time>,
    hash: impl Fn(&D) -> u64 + 'static,
) {
    rows.counted(tally, move |updates| {
        updates
            .iter()
            .map(|(row, _, diff)| hash(row).wrapping_mul(*diff as u64))
            .fold(0, u64::wrapping_add)
    })
    .inner
    .probe_with(probe);
}
