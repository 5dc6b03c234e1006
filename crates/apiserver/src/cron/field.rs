//! One field of a schedule: which numbers it means.

/// A set of numbers below 64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Field {
    numbers: u64,
    /// Whether it was written as any: then the other kind of day decides.
    pub(super) any: bool,
}

impl Field {
    /// Reads numbers, ranges and steps; `names` are those of the numbers from the least on.
    pub(super) fn parse(text: &str, least: u32, most: u32, names: &str) -> Result<Self, String> {
        let mut field = Self { numbers: 0, any: false };
        for part in text.split(',').filter(|part| !part.is_empty()) {
            field.add(part, least, most, names)?;
        }
        if field.numbers == 0 { Err(format!("empty field: {text:?}")) } else { Ok(field) }
    }

    /// Whether it means this number.
    pub(super) fn has(&self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|n| n < u64::BITS && self.numbers & (1 << n) != 0)
    }

    fn add(&mut self, part: &str, least: u32, most: u32, names: &str) -> Result<(), String> {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let (first, last) = range.split_once('-').map_or((range, None), |(first, last)| (first, Some(last)));
        if last.is_some_and(|last| last.contains('-')) {
            return Err(format!("too many hyphens: {part}"));
        }
        let any = matches!(first, "*" | "?");
        let read = |text: &str| number(text, least, names);
        let (first, last) = match (any, last) {
            (true, _) => (least, most),
            (false, Some(last)) => (read(first)?, read(last)?),
            // A number with a step begins there and goes on to the end.
            (false, None) => (read(first)?, if step.is_some() { most } else { read(first)? }),
        };
        let step = match step {
            None => 1,
            Some(step) if step.contains('/') => return Err(format!("too many slashes: {part}")),
            Some(step) => number(step, least, "")?,
        };
        if first < least {
            return Err(format!("beginning of range ({first}) below minimum ({least}): {part}"));
        }
        if last > most {
            return Err(format!("end of range ({last}) above maximum ({most}): {part}"));
        }
        if first > last {
            return Err(format!("beginning of range ({first}) beyond end of range ({last}): {part}"));
        }
        let Ok(by) =
            usize::try_from(step).map_err(drop).and_then(|by| if by == 0 { Err(()) } else { Ok(by) })
        else {
            return Err(format!("step of range should be a positive number: {part}"));
        };
        (first..=last).step_by(by).for_each(|n| self.numbers |= 1 << n);
        self.any |= any && step == 1;
        Ok(())
    }
}

fn number(text: &str, least: u32, names: &str) -> Result<u32, String> {
    let named = names.split_whitespace().position(|name| name.eq_ignore_ascii_case(text));
    if let Some(place) = named.and_then(|place| u32::try_from(place).ok()) {
        return Ok(least + place);
    }
    if text.starts_with('-') && text[1..].parse::<u32>().is_ok() {
        return Err(format!("negative number ({text}) not allowed: {text}"));
    }
    let why =
        |text| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax");
    text.parse().map_err(|_| why(text))
}
