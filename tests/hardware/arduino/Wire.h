// A simulated I2C bus: a Grove board at 0x08 and a BME680's gas status at 0x77.
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include "Arduino.h"

class TwoWire {
 public:
  bool begin(int, int, uint32_t) { return true; }
  bool end() { return true; }
  void setTimeOut(uint16_t) {}

  void beginTransmission(uint8_t address) { address_ = address; }
  size_t write(uint8_t value) {
    command_ = value;
    return 1;
  }
  uint8_t endTransmission() {
    bench.now_us += 200;
    return answers(address_) ? 0 : 2;  // 2: the address was not acknowledged
  }
  size_t requestFrom(uint8_t address, uint8_t count) {
    bench.now_us += 100 + 90 * count;
    if (!answers(address)) return 0;
    value_ = address == 0x08 ? bench.counts[command_ & 7] : bench.gas_status;
    return count;
  }
  int read() {
    const int byte = static_cast<int>(value_ & 0xFF);
    value_ >>= 8;
    return byte;
  }

 private:
  bool answers(uint8_t address) const {
    if (bench.sda_held_low) return false;
    return (address == 0x08 && bench.grove) || (address == 0x77 && bench.bme);
  }
  uint8_t address_ = 0;
  uint8_t command_ = 0;
  uint32_t value_ = 0;
};
extern TwoWire Wire;

#endif  // BENCH_WIRE_H
