//! What Vast would refuse, drop or misread, found before any request. Pure.

use atlas_core::{ComputeRequest, Error, GpuChoice, LaunchKey, Result};
use serde_json::Value;

use crate::translate::{PORTS_ENV, environment};
use crate::{catalogue, place};

const MAX_ENV: usize = 32_768;
const MAX_ARGS: usize = 4_096;

/// Checks for what Vast would refuse, drop or misread, before any request.
pub(crate) fn check(request: &ComputeRequest) -> Result<()> {
    if let Some(GpuChoice::Named(gpu)) = &request.gpu
        && catalogue::names(*gpu).is_empty()
    {
        return Err(Error::unsupported(
            "gpu",
            format!("vast has no name for {gpu}"),
        ));
    }
    if let Some(flag) = request.env.keys().find(|name| name.starts_with('-')) {
        return Err(Error::validation(
            "env",
            format!("vast would take {flag:?} for a flag of docker's"),
        ));
    }
    if request.env.contains_key(PORTS_ENV) {
        return Err(Error::validation(
            "env",
            format!("{PORTS_ENV} is set by atlas"),
        ));
    }
    for region in &request.region_hints {
        place::check(region)?;
    }
    if request.provider_opts["volume_info"]["create_new"] == true {
        return Err(Error::validation(
            "provider_opts",
            "volume_info.create_new makes a volume that bills on after the machine and that \
             nothing deletes: make it with create_volume and mount it by its number",
        ));
    }
    if request.command.iter().map(|part| part.len()).sum::<usize>() > MAX_ARGS {
        return Err(Error::validation(
            "command",
            "vast takes at most 4096 characters",
        ));
    }
    if Value::Object(environment(request, &LaunchKey::Untracked))
        .to_string()
        .len()
        > MAX_ENV - 512
    {
        return Err(Error::validation(
            "env",
            "names, values and ports come to more than the 32768 characters that vast takes",
        ));
    }
    Ok(())
}
