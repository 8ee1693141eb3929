//! The arguments that make a process a member of a cluster, and where the cluster's secret comes from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;

use super::{UsageError, environment};
use crate::cluster::{Member, Secret};

/// The environment variable with the secret.
const SECRET: &str = "ALLUVIUM_SECRET";
/// The file with the secret, in the dataflow's folder.
const SECRET_FILE: &str = "cluster.secret";

/// One process of several.
#[derive(Debug, clap::Args)]
pub struct ClusterArgs {
    /// How many processes run the dataflow together
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    processes: u16,
    /// The number of this process, counted from 0; process 0 leads the others
    #[arg(short = 'p', long, value_name = "INDEX", default_value_t = 0)]
    process: u16,
    /// A file with the address of each process as host:port, one per line, in the order of their numbers; required if
    /// there are several processes
    #[arg(short = 'h', long, value_name = "FILE")]
    hosts: Option<PathBuf>,
    /// Listen at this address; without it at the address that the file of hosts gives for this process
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// A file with the secret that all processes share; without it the secret is taken from the environment variable
    /// ALLUVIUM_SECRET, or else from the file cluster.secret in the dataflow's folder
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

impl ClusterArgs {
    /// The member that the arguments describe; none if the process is the only one.
    ///
    /// # Errors
    /// Arguments that do not fit together, hosts or a secret that cannot be used.
    pub fn member(&self, folder: &Path) -> Result<Option<Arc<Member>>> {
        let (process, processes) = (usize::from(self.process), usize::from(self.processes));
        if process >= processes {
            return Err(UsageError::new(
                format!("there is no process {process} of {processes}"),
                format!(
                    "-p is from 0 to {}; -n says how many processes there are",
                    processes - 1
                ),
            )
            .into());
        }
        if processes == 1 {
            return Ok(None);
        }
        let Some(hosts) = &self.hosts else {
            return Err(UsageError::new(
                "-n without the processes' addresses",
                "name a file with a line host:port for each process: -h hosts.txt",
            )
            .into());
        };
        Ok(Some(Arc::new(Member {
            process,
            hosts: read_hosts(hosts, processes)?,
            listen: self.listen.clone(),
            secret: self.secret(folder)?,
        })))
    }

    fn secret(&self, folder: &Path) -> Result<Secret> {
        let bad = |error: &dyn std::error::Error| {
            let cause = error.source().map_or(String::new(), |cause| format!(": {cause}"));
            let help = "every process of a cluster needs the same secret file";
            anyhow::Error::from(UsageError::new(format!("{error}{cause}"), help))
        };
        let of_folder = folder.join(SECRET_FILE);
        if let Some(file) = &self.secret_file {
            Secret::read(file).map_err(|error| bad(&error))
        } else if let Some(text) = environment(SECRET) {
            Secret::new(text.as_bytes()).map_err(|error| bad(&error))
        } else if of_folder.exists() {
            Secret::read(&of_folder).map_err(|error| bad(&error))
        } else {
            Err(UsageError::new(
                "several processes without a secret would take in whoever connects",
                format!(
                    "make one with `openssl rand -hex 32 > cluster.secret`, and give it to every process: \
                     --secret-file, {SECRET}, or {}",
                    of_folder.display()
                ),
            )
            .into())
        }
    }
}

/// The first `processes` addresses in a file; empty lines and comments (`#`) are skipped.
fn read_hosts(file: &Path, processes: usize) -> Result<Vec<String>> {
    let wrong = |message: String| UsageError::new(message, "the file has a line host:port for each process, in order");
    let text = std::fs::read_to_string(file).map_err(|e| wrong(format!("could not read {}: {e}", file.display())))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or("").trim());
    let mut hosts: Vec<String> = lines.filter(|line| !line.is_empty()).map(str::to_string).collect();
    if hosts.len() < processes {
        return Err(wrong(format!(
            "{} names {} of {processes} processes",
            file.display(),
            hosts.len()
        ))
        .into());
    }
    hosts.truncate(processes);
    for (index, host) in hosts.iter().enumerate() {
        let port = host
            .rsplit_once(':')
            .and_then(|(name, port)| (!name.is_empty()).then(|| port.parse::<u16>()));
        if !matches!(port, Some(Ok(_))) {
            return Err(wrong(format!("{}: {host:?} is not host:port", file.display())).into());
        }
        if hosts[..index].contains(host) {
            return Err(wrong(format!("{} names {host} twice", file.display())).into());
        }
    }
    Ok(hosts)
}
