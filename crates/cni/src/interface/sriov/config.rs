//! The keys of the configuration, those of the sriov-cni project. Pure.

use serde::Deserialize;
use weft_kernel::{VfLinkState, VfSet, VfVlan};
use weft_model::Mac;

use crate::interface::pod;
use crate::protocol::config::invalid;
use crate::protocol::error::CniError;
use crate::protocol::plugin::Call;

/// The largest VLAN identifier and priority.
const LARGEST_VLAN: i64 = 4094;
const LARGEST_QOS: i64 = 7;

/// `logLevel` and `logFile` are passed over: what there is to say is in the error.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Keys {
    #[serde(rename = "deviceID")]
    pub(crate) device_id: Option<String>,
    pub(crate) vlan: Option<i64>,
    #[serde(rename = "vlanQoS")]
    pub(crate) vlan_qos: Option<i64>,
    #[serde(rename = "vlanProto")]
    pub(crate) vlan_proto: Option<String>,
    pub(crate) mac: Option<String>,
    pub(crate) min_tx_rate: Option<u32>,
    pub(crate) max_tx_rate: Option<u32>,
    pub(crate) spoofchk: Option<String>,
    pub(crate) trust: Option<String>,
    pub(crate) link_state: Option<String>,
    /// Where the state is kept while a container has a virtual function.
    #[serde(rename = "cniDir")]
    pub(crate) cni_dir: Option<String>,
}

impl Keys {
    /// The PCI address of the virtual function: the runtime's goes before that of the file.
    pub(crate) fn device(&self, call: &Call) -> Result<String, CniError> {
        let runtime = call.conf.runtime_config.as_ref().and_then(|config| config.device_id.as_ref());
        let given = [runtime, self.device_id.as_ref()];
        let id = given.into_iter().flatten().find(|id| !id.is_empty());
        id.cloned().ok_or_else(|| invalid("deviceID is missing: give the PCI address of a virtual function"))
    }

    /// The hardware address that is asked for.
    pub(crate) fn mac(&self, call: &Call) -> Result<Option<Mac>, CniError> {
        match (pod::mac(call)?, &self.mac) {
            (None, Some(text)) if !text.is_empty() => pod::parse_mac("mac", text).map(Some),
            (asked, _) => Ok(asked),
        }
    }

    /// What is to be set; the index and the number are filled in later.
    pub(crate) fn wanted(&self, call: &Call) -> Result<VfSet, CniError> {
        let rates = (self.min_tx_rate, self.max_tx_rate);
        let rates = (rates != (None, None)).then(|| (rates.0.unwrap_or(0), rates.1.unwrap_or(0)));
        if let Some((min, max)) = rates.filter(|(min, max)| *max != 0 && min > max) {
            return Err(invalid(&format!("min_tx_rate: {min} is more than the {max} of max_tx_rate")));
        }
        Ok(VfSet {
            mac: self.mac(call)?,
            vlan: self.vlan()?,
            spoof_check: switch("spoofchk", self.spoofchk.as_deref())?,
            trust: switch("trust", self.trust.as_deref())?,
            link_state: link_state(self.link_state.as_deref())?,
            rates,
            ..VfSet::default()
        })
    }

    fn vlan(&self) -> Result<Option<VfVlan>, CniError> {
        let Some(id) = self.vlan else {
            let stray = [("vlanQoS", self.vlan_qos.is_some()), ("vlanProto", self.vlan_proto.is_some())];
            return match stray.iter().find(|(_, given)| *given) {
                Some((key, _)) => Err(invalid(&format!("{key} is of no use without vlan: give both"))),
                None => Ok(None),
            };
        };
        let qos = self.vlan_qos.unwrap_or(0);
        let outer = match self.vlan_proto.as_deref().unwrap_or("802.1q").to_ascii_lowercase().as_str() {
            "802.1q" => false,
            "802.1ad" => true,
            other => return Err(invalid(&format!("vlanProto: {other:?} is neither 802.1q nor 802.1ad"))),
        };
        if !(0..=LARGEST_VLAN).contains(&id) {
            return Err(invalid(&format!("vlan: {id} is not between 0 and {LARGEST_VLAN}")));
        }
        if !(0..=LARGEST_QOS).contains(&qos) {
            return Err(invalid(&format!("vlanQoS: {qos} is not between 0 and {LARGEST_QOS}")));
        }
        if id == 0 && (qos != 0 || outer) {
            return Err(invalid("vlan: 0 is no VLAN, so vlanQoS and vlanProto have nothing to be for"));
        }
        Ok(Some(VfVlan {
            id: u32::try_from(id).unwrap_or_default(),
            qos: u32::try_from(qos).unwrap_or_default(),
            outer,
        }))
    }
}

fn switch(key: &str, value: Option<&str>) -> Result<Option<bool>, CniError> {
    match value.unwrap_or_default() {
        "" => Ok(None),
        "on" => Ok(Some(true)),
        "off" => Ok(Some(false)),
        other => Err(invalid(&format!("{key}: {other:?} is neither on nor off"))),
    }
}

fn link_state(value: Option<&str>) -> Result<Option<VfLinkState>, CniError> {
    match value.unwrap_or_default() {
        "" => Ok(None),
        "auto" => Ok(Some(VfLinkState::Auto)),
        "enable" => Ok(Some(VfLinkState::Enable)),
        "disable" => Ok(Some(VfLinkState::Disable)),
        other => Err(invalid(&format!("link_state: {other:?} is none of auto, enable and disable"))),
    }
}
