//! `earmark demo`.
pub mod mu_law;
pub mod phone;
