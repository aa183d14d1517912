//! Marks that are still to come, asked for with every packet: most often there is none, which costs one comparison.

use std::slice;
use wirespan_frame::Mark;

/// Marks in their order.
pub(crate) struct Pending<'a> {
    marks: slice::Iter<'a, Mark>,
    /// What the next one comes before.
    next: usize,
}

impl<'a> Pending<'a> {
    pub(crate) fn new(marks: &'a [Mark]) -> Self {
        let marks = marks.iter();
        Self { next: next(&marks), marks }
    }

    /// The next one that comes before the frame or packet `index`.
    #[inline(always)]
    pub(crate) fn due(&mut self, index: usize) -> Option<Mark> {
        if index < self.next { None } else { self.take() }
    }

    #[cold]
    fn take(&mut self) -> Option<Mark> {
        let mark = self.marks.next().copied();
        self.next = next(&self.marks);
        mark
    }
}

fn next(marks: &slice::Iter<'_, Mark>) -> usize {
    marks.as_slice().first().map_or(usize::MAX, |mark| mark.before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_each_mark_once_and_before_its_packet() {
        let marks = [(0, 1), (2, 2), (2, 3), (9, 4)].map(|(before, ns)| Mark { before, ns });
        let mut pending = Pending::new(&marks);
        let mut due =
            |index| std::iter::from_fn(|| pending.due(index)).map(|mark| mark.ns).collect::<Vec<_>>();
        assert_eq!([0, 1, 2, 3].map(&mut due), [vec![1], vec![], vec![2, 3], vec![]]);
        assert_eq!((due(usize::MAX), due(usize::MAX)), (vec![4], vec![]));
    }
}
