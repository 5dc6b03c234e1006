//! `weft cni`: the plugins for people.

mod list;
mod target;
mod validate;

use weft_cni::protocol::config::ValidAttachment;
use weft_cni::runtime::{Network, Runtime};
use weft_cni::{CniError, code, install};

use crate::cni_args::{
    AddArgs, AttachmentArgs, CniCommand, GcArgs, InstallArgs, NetworkArgs, Place, ResultOutput,
};
use crate::{exit, output};

pub(crate) fn run(command: CniCommand) -> anyhow::Result<u8> {
    match command {
        CniCommand::Add(options) => add(&options),
        CniCommand::Del(options) => del(&options),
        CniCommand::Check(options) => check(&options),
        CniCommand::Gc(options) => gc(&options),
        CniCommand::Status(options) => status(&options),
        CniCommand::List(options) => list::run(&options),
        CniCommand::Validate(options) => validate::run(&options),
        CniCommand::Install(options) => install(&options),
    }
}

impl Place {
    fn runtime(&self) -> Runtime {
        Runtime::new(std::env::split_paths(&self.path).collect(), &self.cache_dir)
    }

    fn network(&self, name: &str) -> anyhow::Result<Network> {
        Ok(Network::find(&self.conf_dir, name)?)
    }
}

fn add(options: &AddArgs) -> anyhow::Result<u8> {
    let attachment = &options.attachment;
    let network = attachment.place.network(&attachment.network)?;
    let result = attachment.place.runtime().add(&network, &target::of(attachment)?)?;
    match options.output {
        ResultOutput::Json => output::line(&serde_json::to_string_pretty(&result)?),
        ResultOutput::Yaml => output::print(&serde_saphyr::to_string(&result)?),
    }
    Ok(exit::DONE)
}

fn del(options: &AttachmentArgs) -> anyhow::Result<u8> {
    let (runtime, target) = (options.place.runtime(), target::of(options)?);
    // The configuration may have gone since the ADD; the cache has it.
    let network = match runtime.attached(&options.network, &target) {
        Some(network) => network,
        None => options.place.network(&options.network)?,
    };
    runtime.del(&network, &target)?;
    Ok(exit::DONE)
}

fn check(options: &AttachmentArgs) -> anyhow::Result<u8> {
    let network = options.place.network(&options.network)?;
    match options.place.runtime().check(&network, &target::of(options)?) {
        Ok(true) => output::line("everything is as it was made"),
        Ok(false) => output::line("not checked: disableCheck is set"),
        Err(error) if error.code == code::INCOMPATIBLE_VERSION => return Err(error.into()),
        Err(error) => return Ok(is_not_so(&error)),
    }
    Ok(exit::DONE)
}

fn status(options: &NetworkArgs) -> anyhow::Result<u8> {
    let network = options.place.network(&options.network)?;
    match options.place.runtime().status(&network) {
        Ok(true) => output::line("containers can be attached"),
        Ok(false) => {
            output::line(&format!("not asked: STATUS needs cniVersion 1.1.0, not {}", network.cni_version))
        }
        Err(error) => return Ok(is_not_so(&error)),
    }
    Ok(exit::DONE)
}

fn gc(options: &GcArgs) -> anyhow::Result<u8> {
    let place = &options.network.place;
    let (runtime, network) = (place.runtime(), place.network(&options.network.network)?);
    let attached = runtime.attachments()?;
    let stays = attached.iter().filter(|a| !options.all && a.network_name == network.name && !a.is_gone());
    let valid: Vec<ValidAttachment> = stays
        .map(|a| ValidAttachment { container_id: a.container_id.clone(), ifname: a.if_name.clone() })
        .collect();
    let (deleted, errors) = runtime.gc(&network, &valid)?;
    for attached in &deleted {
        output::line(&format!("deleted {} of container {}", attached.if_name, attached.container_id));
    }
    errors.iter().for_each(|error| output::complain(&error.message));
    if network.disable_gc {
        output::line("nothing done: disableGC is set");
    }
    Ok(if errors.is_empty() { exit::DONE } else { exit::FAILED })
}

fn install(options: &InstallArgs) -> anyhow::Result<u8> {
    let dir = options.dir.display();
    if options.remove {
        let done = install::remove(&options.dir)?;
        output::line(&format!("removed from {dir}: {}", words(&done.changed)));
        if !done.originals.is_empty() {
            output::line(&format!("brought back: {}", words(&done.originals)));
        }
        return Ok(exit::DONE);
    }
    let program = match &options.from {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name(install::PROGRAM),
    };
    let done = install::install(&program, &options.dir)?;
    output::line(&format!("installed in {dir}: {}", words(&done.changed)));
    if !done.originals.is_empty() {
        output::line(&format!("kept as NAME.orig: {}", words(&done.originals)));
    }
    output::line(&format!("to go back: weft cni install {dir} --remove"));
    Ok(exit::DONE)
}

fn words(names: &[String]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(" ") }
}

fn is_not_so(error: &CniError) -> u8 {
    output::complain(&format!("{} (code {})", error.message, error.code));
    exit::FALSE
}
