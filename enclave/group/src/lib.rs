//! Agreement among the members of a key service.
