//! What Alluvium writes, read and written by engines that we did not write.
