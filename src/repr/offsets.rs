//! Offsets in the batches of an arrangement: ascending numbers, mostly at equal steps.
//!
//! A batch has offsets at equal steps if its rows are equally long, if each key has one value, or if all values have
//! the same time. Offsets at equal steps are not stored. Other offsets take four bytes, or eight beyond 2^32.

use differential_dataflow::trace::implementations::BatchContainer;

use super::footprint::Heap;

/// Ascending offsets.
#[derive(Clone, Default, Debug)]
pub struct Offsets {
    /// The first offset, if there are any.
    start: usize,
    /// How many offsets behind the first one are `step_start`, `step_start + step`, ...
    steps: usize,
    step_start: usize,
    step: usize,
    /// The offsets behind those: first the ones in `small`, then the ones in `large`.
    small: Vec<u32>,
    large: Vec<u64>,
    len: usize,
    /// How many offsets there will be, as far as is known.
    expected: usize,
}

impl Offsets {
    /// Appends an offset.
    #[inline]
    pub fn push(&mut self, offset: usize) {
        if self.len == 0 {
            self.start = offset;
        } else if self.steps + 1 < self.len {
            self.push_apart(offset);
        } else if self.steps == 0 {
            (self.step_start, self.steps) = (offset, 1);
        } else if self.steps == 1 {
            (self.step, self.steps) = (offset - self.step_start, 2);
        } else if offset == self.step_start + self.steps * self.step {
            self.steps += 1;
        } else {
            self.small.reserve(self.expected.saturating_sub(self.len));
            self.push_apart(offset);
        }
        self.len += 1;
    }

    fn push_apart(&mut self, offset: usize) {
        match u32::try_from(offset) {
            Ok(small) if self.large.is_empty() => self.small.push(small),
            _ => self.large.push(offset as u64),
        }
    }

    /// The offset at an index.
    #[inline]
    pub fn get(&self, index: usize) -> usize {
        if index == 0 {
            return self.start;
        }
        if index <= self.steps {
            return self.step_start + (index - 1) * self.step;
        }
        let index = index - 1 - self.steps;
        match self.small.get(index) {
            Some(small) => *small as usize,
            None => self.large[index - self.small.len()] as usize,
        }
    }
}

impl Heap for Offsets {
    fn heap(&self) -> usize {
        self.small.heap() + self.large.heap()
    }
}

impl BatchContainer for Offsets {
    type Owned = usize;
    type ReadItem<'a> = usize;

    #[inline]
    fn into_owned<'a>(item: usize) -> usize {
        item
    }
    #[inline]
    fn reborrow<'b, 'a: 'b>(item: usize) -> usize {
        item
    }
    #[inline]
    fn push_ref(&mut self, item: usize) {
        self.push(item);
    }
    #[inline]
    fn push_own(&mut self, item: &usize) {
        self.push(*item);
    }
    fn clear(&mut self) {
        *self = Self::with_capacity(self.expected);
    }
    fn with_capacity(size: usize) -> Self {
        Offsets {
            expected: size,
            ..Offsets::default()
        }
    }
    fn merge_capacity(left: &Self, right: &Self) -> Self {
        Self::with_capacity(left.len + right.len)
    }
    #[inline]
    fn index(&self, index: usize) -> usize {
        self.get(index)
    }
    #[inline]
    fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn offsets_read_back_in_steps_and_out_of_step(
            start in 0usize..3,
            steps in prop::collection::vec(prop_oneof![4 => Just(0usize), 4 => Just(7), 1 => 0usize..1 << 31], 0..40),
        ) {
            let mut expected = vec![start];
            for step in steps {
                expected.push(expected[expected.len() - 1] + step);
            }
            let mut offsets = Offsets::with_capacity(2);
            for (index, offset) in expected.iter().enumerate() {
                prop_assert_eq!(offsets.len(), index);
                offsets.push(*offset);
                for (index, offset) in expected[..=index].iter().enumerate() {
                    prop_assert_eq!(offsets.get(index), *offset);
                }
            }
        }
    }

    #[test]
    fn equal_steps_take_no_memory() {
        let mut offsets = Offsets::with_capacity(1_000);
        (0..1_000).for_each(|index| offsets.push(index * 28));
        assert_eq!((offsets.small.capacity(), offsets.large.capacity()), (0, 0));
    }
}
