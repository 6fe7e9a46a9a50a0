//! Files are read as they come, and every way to be wrong is told from a torn end.
