//! What the providers speak.
