//! `environment.yml`: the one place where the versions of the Python side are pinned.

use std::path::Path;

use yaml_rust2::YamlLoader;

use crate::tool::Result;

/// The packages that pip installs: those pinned exactly, as `name==version`.
pub(crate) fn pip_requirements(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let specs = conda_dependencies(&text).map_err(|problem| format!("{}: {problem}", path.display()))?;
    Ok(specs
        .iter()
        .filter_map(|spec| spec.split_once('=').filter(|(name, _)| !name.contains(['<', '>', '!', ' '])))
        .map(|(name, version)| format!("{name}=={}", version.trim_start_matches('=')))
        .collect())
}

/// The dependencies of a conda environment file, each a valid match specification.
fn conda_dependencies(text: &str) -> Result<Vec<String>> {
    let documents = YamlLoader::load_from_str(text).map_err(|error| format!("not YAML: {error}"))?;
    let [document] = &documents[..] else { return Err("expected one YAML document".into()) };
    document["name"].as_str().ok_or("expected a name")?;
    let strings = |key: &str| -> Result<Vec<String>> {
        let list = document[key].as_vec().ok_or(format!("expected a list of {key}"))?;
        let item = |item: &yaml_rust2::Yaml| item.as_str().map(str::to_owned).ok_or(format!("{key}: expected text"));
        list.iter().map(item).collect()
    };
    if strings("channels")? != ["conda-forge"] {
        return Err("expected the channel conda-forge alone".into());
    }
    let dependencies = strings("dependencies")?;
    match dependencies.iter().find(|spec| !is_match_spec(spec)) {
        Some(spec) => Err(format!("{spec:?} is no conda match specification")),
        None => Ok(dependencies),
    }
}

/// `name`, `name=version`, or `name` with comma-separated bounds: the forms of a conda match specification that an
/// environment file uses.
fn is_match_spec(spec: &str) -> bool {
    let end = spec.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).unwrap_or(spec.len());
    let (name, rest) = (&spec[..end], spec[end..].trim_start());
    let version = |text: &str| {
        let mut characters = text.chars();
        characters.next().is_some_and(|c| c.is_ascii_digit())
            && characters.all(|c| c.is_ascii_alphanumeric() || ".*_+".contains(c))
    };
    let bound = |text: &str| {
        let operators = [">=", "<=", "==", "!=", ">", "<", "="];
        operators.iter().find_map(|operator| text.strip_prefix(operator)).is_some_and(|rest| version(rest.trim()))
    };
    !name.is_empty() && name == name.to_lowercase() && (rest.is_empty() || rest.split(',').map(str::trim).all(bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_valid_and_pins_what_pip_installs() {
        let path = crate::root().join("environment.yml");
        let dependencies = conda_dependencies(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for needed in ["evcxr", "rust", "rust-src", "jupyterlab", "plotly"] {
            assert!(dependencies.iter().any(|spec| spec.split([' ', '=']).next() == Some(needed)), "{needed}");
        }
        let pinned = pip_requirements(&path).unwrap();
        assert_eq!(pinned.len(), 4, "{pinned:?}");
        assert!(pinned.iter().all(|spec| spec.matches("==").count() == 1 && !spec.contains(' ')), "{pinned:?}");
    }

    #[test]
    fn what_conda_would_refuse_is_refused() {
        for good in ["python", "python >=3.10", "rust-src >=1.89,<2", "plotly=6.9.0", "a.b=1.*"] {
            assert!(is_match_spec(good), "{good}");
        }
        for bad in ["", "python 3.10 or so", "Plotly=6", ">=3", "rust >=", "rust >=1.89,", "a=b"] {
            assert!(!is_match_spec(bad), "{bad}");
        }
        let file = |channels: &str| format!("name: x\nchannels: [{channels}]\ndependencies: [rust]\n");
        assert!(conda_dependencies(&file("conda-forge")).is_ok());
        assert!(conda_dependencies(&file("defaults")).is_err());
        assert!(conda_dependencies("name: x\n").is_err());
        assert!(conda_dependencies("a: [").is_err());
    }
}
