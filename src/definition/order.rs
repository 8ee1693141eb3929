//! Sorts tables so that each comes after the tables that it reads.

/// Tables that form a cycle: `cycle[0]` reads `cycle[1]`, ..., the last reads the first.
pub(super) type Cycle = Vec<usize>;

/// Sorts nodes so that each comes after those that it reads; among nodes that could come next, the one with the least
/// index comes first. `reads[n]` are the nodes that node n reads.
///
/// # Errors
/// One cycle for each group of nodes that reach each other, starting at its first node.
pub(super) fn order(reads: &[Vec<usize>]) -> Result<Vec<usize>, Vec<Cycle>> {
    let mut placed = vec![false; reads.len()];
    let mut order = Vec::with_capacity(reads.len());
    // This is quadratic in the number of tables, which is small, and gives a stable order.
    while let Some(next) = (0..reads.len()).find(|n| !placed[*n] && reads[*n].iter().all(|read| placed[*read])) {
        placed[next] = true;
        order.push(next);
    }
    if order.len() == reads.len() {
        return Ok(order);
    }
    let mut cycles: Vec<Cycle> = Vec::new();
    let mut reported = vec![false; reads.len()];
    for start in 0..reads.len() {
        if placed[start] || reported[start] {
            continue;
        }
        // Nodes that only read from a cycle are not on one, because no path leads back to them.
        let Some(cycle) = way_back(reads, start) else { continue };
        let reached = reachable(reads, start);
        for n in 0..reads.len() {
            reported[n] |= reached[n] && reachable(reads, n)[start];
        }
        cycles.push(cycle);
    }
    Err(cycles)
}

/// The shortest path from a node to itself.
fn way_back(reads: &[Vec<usize>], start: usize) -> Option<Cycle> {
    let mut from: Vec<Option<usize>> = vec![None; reads.len()];
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(n) = queue.pop_front() {
        for &read in &reads[n] {
            if read == start {
                let mut way = vec![n];
                let mut at = n;
                while let Some(before) = from[at] {
                    way.push(before);
                    at = before;
                }
                way.reverse();
                return Some(way);
            }
            if from[read].is_none() {
                from[read] = Some(n);
                queue.push_back(read);
            }
        }
    }
    None
}

/// The nodes that a node reads, directly or indirectly.
fn reachable(reads: &[Vec<usize>], start: usize) -> Vec<bool> {
    let mut seen = vec![false; reads.len()];
    let mut stack = vec![start];
    while let Some(n) = stack.pop() {
        for &read in &reads[n] {
            if !seen[read] {
                seen[read] = true;
                stack.push(read);
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_stands_behind_what_it_reads_and_otherwise_stays_in_place() {
        assert_eq!(order(&[vec![], vec![], vec![]]), Ok(vec![0, 1, 2]));
        assert_eq!(order(&[vec![2], vec![], vec![3], vec![]]), Ok(vec![1, 3, 2, 0]));
    }

    #[test]
    fn each_circle_is_named_once_and_what_only_reads_it_is_not() {
        // 0 -> 1 -> 2 -> 1 ; 3 -> 3 ; 4 reads nothing.
        assert_eq!(
            order(&[vec![1], vec![2], vec![1], vec![3], vec![]]),
            Err(vec![vec![1, 2], vec![3]])
        );
        // Two cycles through one node are one group, of which one cycle is reported.
        assert_eq!(order(&[vec![1, 2], vec![0], vec![0]]), Err(vec![vec![0, 1]]));
    }
}
