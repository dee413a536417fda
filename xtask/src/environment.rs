//! Pinned versions of the Python packages, from `environment.yml`.

use yaml_rust2::{Yaml, YamlLoader};

use crate::tool::Result;

/// The packages that pip installs, as `name==version`: the dependencies that are pinned exactly, as `name=version`.
///
/// # Errors
/// Text that is not YAML, or has no list of dependencies.
pub(crate) fn pip_requirements(text: &str) -> Result<Vec<String>> {
    let documents = YamlLoader::load_from_str(text)?;
    let dependencies = documents.first().and_then(|document| document["dependencies"].as_vec());
    let dependencies = dependencies.ok_or("expected a list of dependencies")?;
    let pins = dependencies.iter().filter_map(Yaml::as_str).filter_map(|dependency| dependency.split_once('='));
    // `name >=version` has an equals sign too: it is a bound, for conda alone.
    let exact = pins.filter(|(name, _)| !name.ends_with(['<', '>', '!']));
    Ok(exact.map(|(name, version)| format!("{name}=={version}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_pins_are_pip_requirements() {
        let text = std::fs::read_to_string(crate::root().join("environment.yml")).unwrap();
        let requirements = pip_requirements(&text).unwrap();
        assert!(requirements.iter().any(|requirement| requirement.starts_with("jupyterlab==")));
        assert_eq!(requirements.len(), 4, "{requirements:?}");
        let text = "dependencies: [rust, python >=3.10, nodejs<23, nodejs!=21, plotly=6.9.0]";
        assert_eq!(pip_requirements(text).unwrap(), ["plotly==6.9.0"]);
    }

    #[test]
    fn a_file_without_dependencies_is_an_error() {
        assert!(pip_requirements("dependencies: [").is_err());
        assert!(pip_requirements("name: x").unwrap_err().to_string().contains("dependencies"));
        assert!(pip_requirements("").is_err());
    }
}
