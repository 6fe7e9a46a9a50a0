//! Transparency log forms of C2SP.
