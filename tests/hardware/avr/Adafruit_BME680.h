// Stands in for the library of the BME680, which Debian does not package.
//
// It starts a measurement and reads the result over the I2C bus, as the library does. Where the
// library computes the four values from raw counts and the part's calibration, this one reads them
// finished from registers that a real part does not have (board.c answers).
#ifndef AVR_ADAFRUIT_BME680_H
#define AVR_ADAFRUIT_BME680_H

#include <Arduino.h>
#include <Wire.h>

class Adafruit_BME680 {
 public:
  explicit Adafruit_BME680(TwoWire *wire) : wire_(wire) {}

  bool begin(uint8_t address) {
    address_ = address;
    uint8_t chip = 0;
    return write(0xE0, 0xB6) && read(0xD0, &chip, 1) && chip == 0x61;  // soft reset, identity
  }

  // Starts a measurement; returns when it will be ready in ms, 0 if the part is silent.
  uint32_t beginReading() { return write(0x74, 0x01) ? millis() + 190 : 0; }

  bool endReading() {
    return read(0x80, &temperature, 4) && read(0x84, &pressure, 4) && read(0x88, &humidity, 4) &&
           read(0x8C, &gas_resistance, 4);
  }

  float temperature = 0;        // degC
  uint32_t pressure = 0;        // Pa
  float humidity = 0;           // %RH
  uint32_t gas_resistance = 0;  // Ohm

 private:
  bool write(uint8_t where, uint8_t value) {
    wire_->beginTransmission(address_);
    wire_->write(where);
    wire_->write(value);
    return wire_->endTransmission() == 0;
  }

  bool read(uint8_t where, void *out, uint8_t count) {
    wire_->beginTransmission(address_);
    wire_->write(where);
    if (wire_->endTransmission() != 0) return false;
    if (wire_->requestFrom(address_, count) != count) return false;
    for (uint8_t i = 0; i < count; ++i) static_cast<uint8_t *>(out)[i] = wire_->read();
    return true;
  }

  TwoWire *wire_;
  uint8_t address_ = 0;
};

#endif  // AVR_ADAFRUIT_BME680_H
