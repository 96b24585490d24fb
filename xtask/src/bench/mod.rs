//! placeholder
use crate::steps::Failure;
pub(crate) fn bench(_arguments: &[String]) -> Result<(), Failure> {
    Err(Failure::usage("later"))
}
