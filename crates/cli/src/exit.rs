//! What exit codes mean, the same for every command.

use weft_cni::{CniError, code};
use weft_lab::config::ConfigError;
use weft_lab::exec::BadTarget;
use weft_lab::manifest::ManifestError;

/// Done.
pub(crate) const DONE: u8 = 0;
/// What was asked is not so: a check with mismatches, a lab that is not ready.
pub(crate) const FALSE: u8 = 1;
/// Wrong usage: arguments or manifests. Clap uses the same.
pub(crate) const USAGE: u8 = 2;
/// It could not be done.
pub(crate) const FAILED: u8 = 3;

/// What the user gave wrongly.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The exit code for an error that ended a command.
pub(crate) fn code_of(error: &anyhow::Error) -> u8 {
    let usage = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<ConfigError>()
            || cause.is::<ManifestError>()
            || cause.is::<BadTarget>()
            || cause.is::<Usage>()
            || matches!(cause.downcast_ref(), Some(weft_lab::Error::Config(_)))
            || cause.downcast_ref().is_some_and(is_configuration)
    };
    if error.chain().any(usage) { USAGE } else { FAILED }
}

/// A network configuration, or an argument of an attachment, that cannot be.
fn is_configuration(error: &CniError) -> bool {
    use code::{DECODE, INCOMPATIBLE_VERSION, INVALID_CONFIG, INVALID_ENVIRONMENT, UNSUPPORTED_FIELD};
    [INCOMPATIBLE_VERSION, UNSUPPORTED_FIELD, INVALID_ENVIRONMENT, DECODE, INVALID_CONFIG]
        .contains(&error.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_gave_wrongly_is_usage_and_the_rest_failed() {
        let config = anyhow::Error::from(weft_lab::Error::Config(ConfigError::Nodes(0)));
        assert_eq!(code_of(&config), USAGE);
        let manifest = ManifestError::Empty { given: "x".into() };
        assert_eq!(code_of(&anyhow::Error::from(manifest).context("read")), USAGE);
        assert_eq!(code_of(&anyhow::anyhow!("no route")), FAILED);
    }
}
