//! Holds the manifest beside it; see there.
