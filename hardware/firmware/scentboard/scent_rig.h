// Computations of the sketch: MQ curves, altitude, the sampling schedule, a hung BME680.
//
// Plain C++11 without Arduino, so that the host's tests run the same code.
#ifndef SCENT_RIG_H
#define SCENT_RIG_H

#include <math.h>
#include <stdint.h>
#include <string.h>

namespace scent {

// An MQ part behind its load resistor: ppm = a * (Rs / R0) ^ b, the power law of its datasheet.
struct MqCurve {
  float a;
  float b;
  float load_kohm;
  float r0_kohm;  // Rs in clean air divided by the clean-air ratio; differs from part to part
};

// Resistance of the sensing layer. `volts` is across the load resistor, `supply_volts` across
// both. Infinite without current, 0 at the supply's rail.
inline float mq_resistance_kohm(float volts, float supply_volts, float load_kohm) {
  if (volts <= 0.0f) return INFINITY;
  if (volts >= supply_volts) return 0.0f;
  return supply_volts * load_kohm / volts - load_kohm;
}

// Whole ppm, as the published recordings hold them; infinite at the rail, NAN without a part.
inline float mq_ppm(float volts, float supply_volts, const MqCurve &curve) {
  if (isnan(volts)) return NAN;
  const float rs_kohm = mq_resistance_kohm(volts, supply_volts, curve.load_kohm);
  if (isinf(rs_kohm)) return 0.0f;
  if (rs_kohm <= 0.0f) return INFINITY;
  return roundf(curve.a * powf(rs_kohm / curve.r0_kohm, curve.b));
}

// International barometric formula, as in the upstream firmware's library.
inline float altitude_m(float pressure_hpa, float sea_level_hpa) {
  return 44330.0f * (1.0f - powf(pressure_hpa / sea_level_hpa, 0.1903f));
}

// Slots at multiples of the period since the start. A late slot delays no other, so the rate is
// exact over any length of time; a slot that is missed altogether is skipped with its number, which
// the host counts as a lost frame. Correct across the wrap of millis().
class Schedule {
 public:
  Schedule(uint32_t start_ms, uint32_t period_ms)
      : next_ms_(start_ms), period_ms_(period_ms), seq_(0) {}

  // Whether a slot is due; if so, `seq` and `slot_ms` are its number and its nominal time.
  bool due(uint32_t now_ms, uint32_t *seq, uint32_t *slot_ms) {
    const int32_t late_ms = static_cast<int32_t>(now_ms - next_ms_);
    if (late_ms < 0) return false;
    const uint32_t missed = static_cast<uint32_t>(late_ms) / period_ms_;
    *seq = seq_ + missed;
    *slot_ms = next_ms_ + missed * period_ms_;
    seq_ = *seq + 1;
    next_ms_ = *slot_ms + period_ms_;
    return true;
  }

 private:
  uint32_t next_ms_;
  uint32_t period_ms_;
  uint32_t seq_;
};

// A BME680 that has hung repeats its row for ever; a working one does so a few times at most.
class RepeatWatch {
 public:
  explicit RepeatWatch(int limit) : limit_(limit), repeats_(0) { memset(last_, 0, sizeof last_); }

  // Whether `row` (temperature, pressure, humidity, gas resistance) was given `limit` times.
  bool hung(const float (&row)[4]) {
    repeats_ = memcmp(row, last_, sizeof last_) == 0 ? repeats_ + 1 : 1;
    memcpy(last_, row, sizeof last_);
    if (repeats_ < limit_) return false;
    repeats_ = 0;
    return true;
  }

 private:
  int limit_;
  int repeats_;
  float last_[4];
};

}  // namespace scent

#endif  // SCENT_RIG_H
