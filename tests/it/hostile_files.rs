//! Folders, names, links and lifecycles of files that feeds meet in the wild.
