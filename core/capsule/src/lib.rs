//! DataCapsule.
