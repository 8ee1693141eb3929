//! Measures the process: live bytes and allocations as the program requests them, RSS as the kernel reports it, and
//! processor time.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use mimalloc::MiMalloc;

/// The product's allocator, with counters.
pub struct Counting;

static LIVE: AtomicI64 = AtomicI64::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed to mimalloc unchanged.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(rounded(layout.size()), Relaxed);
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(rounded(layout.size()), Relaxed);
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(rounded(layout.size()), Relaxed);
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(rounded(size) - rounded(layout.size()), Relaxed);
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }
}

/// The bytes that an allocation occupies: mimalloc's size classes are 8, multiples of 16 up to 128, then four per
/// doubling; large allocations occupy whole pages.
fn rounded(size: usize) -> i64 {
    let step = match size {
        0..=8 => 8,
        9..=128 => 16,
        129..0x2_0000 => size.next_power_of_two() / 8,
        _ => 4096,
    };
    size.next_multiple_of(step) as i64
}

/// The process's memory at one moment.
pub struct Memory {
    /// Bytes that are allocated and not freed.
    pub live: i64,
    /// The number of allocations since the process started.
    pub allocations: u64,
    /// Resident set, in bytes.
    pub rss: u64,
}

pub fn now() -> Memory {
    Memory {
        live: LIVE.load(Relaxed),
        allocations: ALLOCATIONS.load(Relaxed),
        rss: status("VmRSS:"),
    }
}

/// The most resident memory that the process has had, in bytes.
pub fn peak_rss() -> u64 {
    status("VmHWM:")
}

/// The value of a line in /proc/self/status, in bytes; 0 if the line is missing.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// User and system time of the whole process.
pub fn own_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the structure that it is given.
    #[allow(unsafe_code)]
    unsafe {
        libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time);
    }
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
