//! What TensorBoard's HPARAMS tab shows of a run: its settings, and whether it is complete.
//!
//! The tab compares the runs of a folder. It finds by itself the settings that differ, and the last values of all
//! scalars. For each run it keeps what it has read first: a run that is resumed with other settings keeps those of its
//! start, and one that has failed or was stopped, and may go on, must not be called ended.

use protobuf::Message;
use protobuf::well_known_types::Value as Shown;
use serde_json::Value;
use tensorboard_proto::api::Status;
use tensorboard_proto::plugin_hparams::HParamsPluginData;
use tensorboard_proto::summary::Summary_Value;
use tensorboard_proto::types::DataType;

/// The name of TensorBoard's plug-in, and the tags that it reads.
const PLUGIN: &str = "hparams";
const START: &str = "_hparams_/session_start_info";
const END: &str = "_hparams_/session_end_info";

/// What a key shows that is not set: without a value, a run would not differ from those that have one.
const UNSET: &str = "none";

/// The settings of a run that has begun at `time`.
pub(crate) fn started<'a>(settings: impl IntoIterator<Item = (&'a str, &'a Value)>, time: f64) -> Summary_Value {
    let mut data = HParamsPluginData::new();
    let start = data.mut_session_start_info();
    start.set_start_time_secs(time);
    start.set_hparams(settings.into_iter().map(|(key, value)| (key.to_owned(), shown(value))).collect());
    tagged(START, &data)
}

/// That a run has reached its last step, at `time`.
pub(crate) fn finished(time: f64) -> Summary_Value {
    let mut data = HParamsPluginData::new();
    let end = data.mut_session_end_info();
    end.set_status(Status::STATUS_SUCCESS);
    end.set_end_time_secs(time);
    tagged(END, &data)
}

/// A setting as a number, a truth value or a text; there is nothing else.
fn shown(value: &Value) -> Shown {
    let mut shown = Shown::new();
    match value {
        Value::Number(number) => shown.set_number_value(number.as_f64().unwrap_or(f64::NAN)),
        Value::Bool(holds) => shown.set_bool_value(*holds),
        Value::String(text) => shown.set_string_value(text.clone()),
        Value::Null => shown.set_string_value(UNSET.into()),
        Value::Array(_) | Value::Object(_) => shown.set_string_value(value.to_string()),
    }
    shown
}

/// The plug-in reads only the metadata of a value, which must be there.
fn tagged(tag: &str, data: &HParamsPluginData) -> Summary_Value {
    let mut value = Summary_Value::new();
    value.set_tag(tag.into());
    let plugin = value.mut_metadata().mut_plugin_data();
    plugin.set_plugin_name(PLUGIN.into());
    plugin.set_content(data.write_to_bytes().expect("the message has no required field"));
    let tensor = value.mut_tensor();
    tensor.set_dtype(DataType::DT_FLOAT);
    // An empty vector.
    tensor.mut_tensor_shape().mut_dim().push_default();
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tensorboard_proto::plugin_hparams::SessionStartInfo;

    use super::*;

    fn data(value: &Summary_Value) -> HParamsPluginData {
        let plugin = value.get_metadata().get_plugin_data();
        assert_eq!(plugin.get_plugin_name(), "hparams");
        // The value itself is empty, but TensorBoard skips one that is missing.
        assert_eq!(value.get_tensor().get_dtype(), DataType::DT_FLOAT);
        assert_eq!(value.get_tensor().get_tensor_shape().get_dim()[0].get_size(), 0);
        HParamsPluginData::parse_from_bytes(plugin.get_content()).unwrap()
    }

    #[test]
    fn settings_are_numbers_truth_values_and_texts() {
        let settings = [
            ("ema.rates", json!([0.9, 0.999])),
            ("model.classes", json!(null)),
            ("train.lr", json!(2e-4)),
            ("data.flip", json!(true)),
            ("diffusion.schedule", json!("cosine")),
            ("seed", json!(7)),
        ];
        let value = started(settings.iter().map(|(key, value)| (*key, value)), 12.5);
        assert_eq!(value.get_tag(), "_hparams_/session_start_info");
        let data = data(&value);
        let start: &SessionStartInfo = data.get_session_start_info();
        assert_eq!(
            (data.get_version(), start.get_start_time_secs(), start.get_hparams().len()),
            (0, 12.5, settings.len())
        );
        let shown = |key: &str| &start.get_hparams()[key];
        assert_eq!(shown("train.lr").get_number_value(), 2e-4);
        assert_eq!(shown("seed").get_number_value(), 7.0);
        assert!(shown("data.flip").get_bool_value());
        assert_eq!(shown("diffusion.schedule").get_string_value(), "cosine");
        assert_eq!(shown("ema.rates").get_string_value(), "[0.9,0.999]");
        assert_eq!(shown("model.classes").get_string_value(), "none");
    }

    #[test]
    fn the_end_is_a_success() {
        let value = finished(99.0);
        assert_eq!(value.get_tag(), "_hparams_/session_end_info");
        let data = data(&value);
        let end = data.get_session_end_info();
        assert_eq!((end.get_status(), end.get_end_time_secs()), (Status::STATUS_SUCCESS, 99.0));
    }
}
