//! What exit codes mean, the same for every command.

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

/// The exit code for an error that ended a command.
pub(crate) fn code_of(error: &anyhow::Error) -> u8 {
    let usage = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<ConfigError>()
            || cause.is::<ManifestError>()
            || cause.is::<BadTarget>()
            || matches!(cause.downcast_ref(), Some(weft_lab::Error::Config(_)))
    };
    if error.chain().any(usage) { USAGE } else { FAILED }
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
