//! What becomes of a request's parameters.

use indexmap::IndexMap;

use crate::config::read::{choices, section};
use crate::config::value::Json;

section! {
    /// What becomes of the request's parameters.
    pub struct Params {
        /// What happens to a parameter that the target does not take, or not with that value.
        unsupported: Unsupported = Unsupported::Drop;
        /// Parameters for requests that lack them, or have `null` there.
        defaults: IndexMap<String, Json> = IndexMap::new();
        /// Parameters that replace the caller's; `null` takes one out.
        overrides as "override": IndexMap<String, Json> = IndexMap::new();
        /// The rules for single parameters.
        rules: Vec<ParameterRule> = Vec::new();
    }
}

choices! {
    /// What happens to a parameter that the target does not take.
    pub enum Unsupported {
        /// It is left out and named in `x-weir-dropped-params`.
        Drop = "drop",
        /// The request is refused.
        Reject = "reject",
        /// A number becomes the nearest that is allowed, and is named in `x-weir-dropped-params` with it; what has no nearest is left out.
        Clamp = "clamp",
    }
}

section! {
    /// The rule for one parameter. What it leaves out is its template's.
    pub struct ParameterRule {
        /// The parameter.
        name: String;
        /// The template that it overlays; by default the one of its name.
        use_template: Option<String> = None;
        /// The type of its value.
        value_type as "type": Option<ParameterType> = None;
        /// Whether a request must have it.
        required: Option<bool> = None;
        /// Its value when a request lacks it; a template's default only counts where the parameter is required.
        default: Option<Json> = None;
        /// The smallest value.
        min: Option<f64> = None;
        /// The largest value.
        max: Option<f64> = None;
        /// How many digits after the point.
        precision: Option<u32> = None;
        /// The only values.
        options: Option<Vec<String>> = None;
        /// What it does, for people.
        help: Option<String> = None;
    }
}

choices! {
    /// The type of a parameter's value.
    pub enum ParameterType {
        /// A number.
        Float = "float",
        /// A whole number.
        Int = "int",
        /// A short text.
        String = "string",
        /// True or false.
        Boolean = "boolean",
        /// A long text.
        Text = "text",
    }
}
