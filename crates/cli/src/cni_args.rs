//! The command line of `weft cni`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::args::StatusOutput;

#[derive(Debug, Subcommand)]
pub(crate) enum CniCommand {
    /// Attach a network namespace to a network
    #[command(
        after_help = "Prints the result of the last plugin. NETNS is a path, or a name in /run/netns.\n\nExamples:\n  ip netns add box\n  weft cni add mynet box\n  NETCONFPATH=. weft cni add mynet /run/netns/box --ifname eth1\n  weft cni add mynet box --capability-args '{\"portMappings\":[{\"hostPort\":8080,\"containerPort\":80,\"protocol\":\"tcp\"}]}'"
    )]
    Add(AddArgs),
    /// Detach a network namespace from a network
    #[command(after_help = "Example:\n  weft cni del mynet box")]
    Del(AttachmentArgs),
    /// Compare an attachment with what was made for it
    #[command(
        after_help = "Ends with 1 when something is not as it was made.\n\nExample:\n  weft cni check mynet box"
    )]
    Check(AttachmentArgs),
    /// Delete a network's attachments whose namespace is gone, and what belongs to none
    #[command(
        after_help = "What another runtime attached is known by libcni's cache and stays while its namespace is there.\n\nExamples:\n  weft cni gc mynet\n  weft cni gc mynet --all"
    )]
    Gc(GcArgs),
    /// Ask a network's plugins whether a container could be attached now
    #[command(after_help = "Ends with 1 when not.\n\nExample:\n  weft cni status mynet")]
    Status(NetworkArgs),
    /// List what is attached on this node, by whatever runtime
    #[command(after_help = "Examples:\n  weft cni list\n  weft cni list mynet -o wide")]
    List(ListArgs),
    /// Explain what a network configuration does, and every mistake in it
    #[command(
        after_help = "Ends with 1 when there are mistakes.\n\nExamples:\n  weft cni validate /etc/cni/net.d/10-mynet.conflist\n  weft cni validate mynet.conflist -o json"
    )]
    Validate(ValidateArgs),
    /// Put weft-cni and a link for each plugin into a folder
    #[command(
        after_help = "Safe on a running node: each name is replaced at once. What had the name of a plugin is kept as NAME.orig; --remove brings it back.\n\nExamples:\n  weft cni install /opt/cni/bin\n  weft cni install /opt/cni/bin --remove"
    )]
    Install(InstallArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NetworkArgs {
    /// The network's name
    pub(crate) network: String,
    /// Taken for cnitool's sake
    #[arg(value_name = "NETNS", hide = true)]
    pub(crate) ignored: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The folder of network configurations
    #[arg(long, env = "NETCONFPATH", default_value = "/etc/cni/net.d", hide_env_values = true)]
    pub(crate) conf_dir: PathBuf,
    /// Folders of other programs' plugins, separated by colons
    #[arg(
        long,
        value_name = "DIRS",
        env = "CNI_PATH",
        default_value = "/opt/cni/bin:/usr/lib/cni",
        hide_env_values = true
    )]
    pub(crate) path: std::ffi::OsString,
    /// Where attachments are remembered: libcni's cache
    #[arg(long, value_name = "DIR", default_value = weft_cni::runtime::DEFAULT_CACHE_DIR)]
    pub(crate) cache_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct AttachmentArgs {
    /// The network's name
    pub(crate) network: String,
    /// The network namespace: a path, or a name in /run/netns
    pub(crate) netns: PathBuf,
    /// The interface's name in the namespace
    #[arg(long, env = "CNI_IFNAME", default_value = "eth0", hide_env_values = true)]
    pub(crate) ifname: String,
    /// The container's ID [default: made from the path, as cnitool makes it]
    #[arg(long, value_name = "ID")]
    pub(crate) container_id: Option<String>,
    /// Arguments for the plugins, as KEY=VALUE;KEY=VALUE
    #[arg(long, env = "CNI_ARGS", hide_env_values = true)]
    pub(crate) args: Option<String>,
    /// What each capability is given, as a JSON object
    #[arg(long, value_name = "JSON", env = "CAP_ARGS", hide_env_values = true)]
    pub(crate) capability_args: Option<String>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    #[command(flatten)]
    pub(crate) attachment: AttachmentArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = ResultOutput::Json)]
    pub(crate) output: ResultOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ResultOutput {
    /// As the plugin gave it
    Json,
    /// The same as YAML
    Yaml,
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// Delete every attachment of the network, as cnitool does
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only this network's
    pub(crate) network: Option<String>,
    /// Where attachments are remembered: libcni's cache
    #[arg(long, value_name = "DIR", default_value = weft_cni::runtime::DEFAULT_CACHE_DIR)]
    pub(crate) cache_dir: PathBuf,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = StatusOutput::Text)]
    pub(crate) output: StatusOutput,
}

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// The configuration: a list or a single plugin's
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Folders of other programs' plugins, separated by colons
    #[arg(
        long,
        value_name = "DIRS",
        env = "CNI_PATH",
        default_value = "/opt/cni/bin:/usr/lib/cni",
        hide_env_values = true
    )]
    pub(crate) path: std::ffi::OsString,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = crate::args::Output::Text)]
    pub(crate) output: crate::args::Output,
}

#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// The runtime's folder of plugins
    pub(crate) dir: PathBuf,
    /// Take them out again and bring back what was there before
    #[arg(long)]
    pub(crate) remove: bool,
    /// The executable [default: weft-cni beside weft]
    #[arg(long, value_name = "FILE", conflicts_with = "remove")]
    pub(crate) from: Option<PathBuf>,
}
