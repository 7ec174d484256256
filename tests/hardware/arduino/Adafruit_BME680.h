// A simulated BME680: a reading takes 190 ms, as the part needs with its heater at 150 ms.
#ifndef BENCH_ADAFRUIT_BME680_H
#define BENCH_ADAFRUIT_BME680_H

#include "Wire.h"

class Adafruit_BME680 {
 public:
  explicit Adafruit_BME680(TwoWire *) {}
  bool begin(uint8_t address) {
    if (address != 0x77 || !plugged()) return false;
    ++bench.bme_resets;
    bench.bme_moves = true;
    return true;
  }
  uint32_t beginReading() { return plugged() ? millis() + 190 : 0; }
  bool endReading() {
    if (!plugged()) return false;
    if (bench.bme_moves) ++readings_;
    temperature = 25.5f;
    pressure = 102284;
    humidity = 27.95f;
    gas_resistance = 69690 + static_cast<uint32_t>(readings_ % 2) * 10;
    return true;
  }
  float temperature = 0;
  uint32_t pressure = 0;
  float humidity = 0;
  uint32_t gas_resistance = 0;

 private:
  static bool plugged() { return bench.bme && !bench.sda_held_low; }
  int readings_ = 0;
};

#endif  // BENCH_ADAFRUIT_BME680_H
