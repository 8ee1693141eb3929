//! Compares the footprints that operators report with what the allocator has handed out.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use differential_dataflow::AsCollection;
use timely::dataflow::ProbeHandle;
use timely::dataflow::operators::{Input as _, Probe};

use super::arrange::{arrange_by_key, arrange_rows, distinct, join, reduce};
use crate::repr::footprint::{self, Footprint};
use crate::repr::{Diff, Epoch, Row};

/// The system's allocator, which also counts the bytes that each thread has allocated and not freed.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    // A thread that ends may free memory after its thread-locals are gone.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

/// Runs `work`. Returns its result, and by how many bytes this thread's memory grew at its peak.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, i64) {
    let before = live();
    PEAK.with(|peak| peak.set(before));
    let done = work();
    (done, PEAK.with(Cell::get) - before)
}

#[expect(
    unsafe_code,
    reason = "an allocator cannot be written without; the system's does all of it"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn live() -> i64 {
    LIVE.with(Cell::get)
}

/// Pairs with short and long keys and values.
fn pair(n: u64) -> (Row, Row) {
    let key = format!("key {:0width$}", n / 3, width = 4 + (n % 40) as usize / 20 * 30);
    let value = format!("{:0width$}", n, width = 8 + (n % 50) as usize);
    (Row::new(key.as_bytes()), Row::new(value.as_bytes()))
}

/// How far the reported sum may be from the allocator's: by this share, and by the buffers of operators and channels,
/// whose size does not depend on the number of rows.
const SHARE: f64 = 0.05;
const BUFFERS: f64 = 640.0 * 1024.0;

#[track_caller]
fn assert_explained(allocated: i64, when: &str) -> u64 {
    let footprints = footprint::held();
    let sum: u64 = footprints.values().map(|footprint| footprint.bytes).sum();
    let gap = (sum as i64 - allocated).abs();
    assert!(
        (gap as f64) < allocated as f64 * SHARE + BUFFERS,
        "{when}: {allocated} bytes are allocated, of which these are known: {footprints:#?}"
    );
    sum
}

#[test]
fn what_operators_hold_is_what_the_allocator_says_and_falls_when_rows_go() {
    const PAIRS: u64 = 200_000;
    const PARTS: u64 = 10;
    let mut config = timely::Config::thread();
    // Idle workers merge all batches, so that memory of deleted rows is freed soon.
    let idle = differential_dataflow::Config::default().idle_merge_effort(Some(1000));
    differential_dataflow::configure(&mut config.worker, &idle);
    let guards = timely::execute(config, |worker| {
        let probe = ProbeHandle::new();
        let mut handle = worker.dataflow::<Epoch, _, _>(|scope| {
            let (handle, stream) = scope.new_input::<Vec<((Row, Row), Epoch, Diff)>>();
            let pairs = stream.as_collection();
            let left = arrange_by_key(pairs.clone(), "left");
            let right = arrange_by_key(pairs.clone(), "right");
            let longest = reduce(
                left.clone(),
                "longest",
                Box::new(|_, values, output| output.push((values[values.len() - 1].0.to_row(), 1))),
            );
            let rows = arrange_rows(pairs.map(|(key, _)| key), "keys");
            distinct(rows, "distinct").inner.probe_with(&probe);
            let joined = join(left, right, Box::new(|key, _, _| key.to_row()));
            joined.inner.probe_with(&probe);
            longest.stream.probe_with(&probe);
            handle
        });
        let mut time = 0;
        let mut close = |worker: &mut timely::worker::Worker,
                         handle: &mut timely::dataflow::operators::core::input::Handle<_, _>| {
            time += 1;
            handle.advance_to(time);
            while probe.less_than(&time) {
                worker.step();
            }
            for _ in 0..5000 {
                worker.step();
            }
            time
        };
        let mut at = close(worker, &mut handle);
        let before = live();
        // Rows are added in parts, because operators keep buffers as large as the largest change of one epoch.
        let part = |part: u64| (0..PAIRS).filter(move |n| n % PARTS == part);
        for added in 0..PARTS {
            part(added).for_each(|n| handle.send((pair(n), at, 1)));
            at = close(worker, &mut handle);
        }
        let full = assert_explained(live() - before, "full");
        let footprints = footprint::held();
        let mut names: Vec<&str> = footprints.keys().map(|(_, name)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["keys", "left", "longest", "right"]);
        let left = footprints
            .iter()
            .find(|((_, name), _)| name == "left")
            .map(|(_, footprint)| footprint.records);
        assert_eq!(left, Some(PAIRS));
        for removed in 1..PARTS {
            part(removed).for_each(|n| handle.send((pair(n), at, -1)));
            at = close(worker, &mut handle);
        }
        // Batches are merged once time has passed them.
        handle.send((pair(PAIRS), at, 1));
        close(worker, &mut handle);
        let left = assert_explained(live() - before, "after most rows went");
        assert!(left < full / 5, "{left} of {full} bytes for a tenth of the rows");
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
        drop(handle);
        assert!(footprint::held().is_empty(), "nobody holds anything");
    });
    guards
        .expect("a worker starts")
        .join()
        .into_iter()
        .for_each(|ended| ended.expect("it does not panic"));
}

#[test]
fn rows_that_wait_are_estimated_by_the_first_of_them() {
    let before = live();
    let rows = |from: u64| {
        (from..from + 1000)
            .map(|n| (pair(n * 50).1, 1))
            .collect::<Vec<(Row, Diff)>>()
    };
    let long = |n: u64| Row::new(format!("{n:060}").as_bytes());
    let vectors = [rows(0), rows(9000), (0..777).map(|n| (long(n), -1)).collect(), vec![]];
    let about = footprint::about(vectors.iter(), |(row, _)| row);
    let allocated = live() - before;
    assert_eq!((about.records, about.estimated), (2777, true));
    assert!(
        (about.bytes as i64 - allocated).abs() < allocated / 50,
        "{about:?} of {allocated}"
    );
    assert_eq!(footprint::about([vec![]].iter(), |row| row), Footprint::default());
}
