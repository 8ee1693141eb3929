//! Files that feeds keep open for as long as they run, counted over all feeds. The system lets a process open so many files
//! and no more; tables, clients and the lake need some at every moment. So feeds may keep half of them: a feed that would
//! take more waits with its cause, and the rest of the run goes on.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};

static KEPT: AtomicU64 = AtomicU64::new(0);

/// Leave to keep one file open. It is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct KeptOpen {
    count: &'static AtomicU64,
}

impl KeptOpen {
    /// # Errors
    /// Feeds keep half of the files that the process may open.
    pub(crate) fn take() -> io::Result<KeptOpen> {
        // Unknown on systems that bound nothing.
        let limit = rlimit::Resource::NOFILE.get_soft().unwrap_or(u64::MAX);
        KeptOpen::take_of(&KEPT, limit / 2)
    }

    fn take_of(count: &'static AtomicU64, most: u64) -> io::Result<KeptOpen> {
        if count.fetch_add(1, Ordering::Relaxed) >= most {
            count.fetch_sub(1, Ordering::Relaxed);
            return Err(io::Error::new(
                ErrorKind::QuotaExceeded,
                format!(
                    "feeds keep {most} files open already, half of what the process may; raise its limit of open files \
                     (ulimit -n, LimitNOFILE) and start again"
                ),
            ));
        }
        Ok(KeptOpen { count })
    }
}

impl Drop for KeptOpen {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_makes_room_for_another() {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let first = KeptOpen::take_of(&COUNT, 2).unwrap();
        let second = KeptOpen::take_of(&COUNT, 2).unwrap();
        let refused = KeptOpen::take_of(&COUNT, 2).unwrap_err();
        assert!(refused.to_string().contains("ulimit"), "{refused}");
        drop(first);
        let third = KeptOpen::take_of(&COUNT, 2).unwrap();
        drop((second, third));
        assert_eq!(COUNT.load(Ordering::Relaxed), 0);
    }
}
