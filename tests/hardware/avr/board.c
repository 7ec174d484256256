// The board of the sketch on a simulated ATmega2560: its serial port is a pseudo-terminal.
//
//   board SKETCH.elf LINK SPEED < SCRIPT
//
// LINK becomes a link to the pseudo-terminal. SPEED is simulated seconds per second at most, from the
// first reader on; bytes that nobody reads are lost. 0 is as fast as possible, and such bytes are
// waited for. Lines of SCRIPT, in the order of their times:
//
//   <ms> row <NO2> <C2H5OH> <VOC> <CO> <mV> <mV> <mV> <degC> <Pa> <%RH> <Ohm>
//                          what the parts show from then on; mV at the pins of MQ-135, MQ-9, MQ-3
//   <ms> grove <0|1>, <ms> bme <0|1>   whether a part answers on the I2C bus
//   <ms> end               the program ends
//
// and, anywhere, faults of the serial line, by the number of the line that the board is sending and
// of the byte in it, both from 0:
//
//   reset <line> <byte>           the controller is reset before that byte
//   drop <line> <byte> <count>    so many bytes are lost
//   pause <line> <byte> <ms>      that byte comes late, in real time
//
// Standard output tells when resets happen: "reset <ms>".
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <simavr/avr_adc.h>
#include <simavr/avr_twi.h>
#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>

enum { kHz = 16000000, kMaxSteps = 20000, kMaxFaults = 16 };
enum { kGroveAddress = 0x08, kBmeAddress = 0x77, kGroveWarmUp = 0xFE };
static const int kMqInputs[3] = {2, 3, 4};  // A2, A3, A4

typedef struct {
  unsigned counts[4];
  unsigned mq_mv[3];
  float temperature_c;
  uint32_t pressure_pa;
  float humidity_percent;
  uint32_t gas_ohm;
} Row;

typedef struct {
  uint64_t at_ms;
  enum { kRow, kGrove, kBme, kEnd } kind;
  Row row;
  bool on;
} Step;

typedef struct {
  enum { kReset, kDrop, kPause } kind;
  unsigned line, byte, value;
} Fault;

static Step steps[kMaxSteps];
static size_t step_count;
static Fault faults[kMaxFaults];
static size_t fault_count;

static avr_t *avr;
static int terminal;
static Row shown;  // by the parts now
static Row measured;  // by the BME680 when its measurement began
static bool grove_answers = true, bme_answers = true;
static bool grove_warm;
static bool reset_wanted;
static unsigned sent_lines, sent_bytes, drops_left;

// Script

static bool read_step(const char *text) {
  if (step_count == kMaxSteps) return false;
  Step *step = &steps[step_count];
  Row *row = &step->row;
  char what[16];
  int on = 0, used = 0;
  if (sscanf(text, "%lu %15s %n", &step->at_ms, what, &used) != 2) return false;
  const char *rest = text + used;
  if (strcmp(what, "row") == 0) {
    step->kind = kRow;
    if (sscanf(rest, "%u %u %u %u %u %u %u %f %u %f %u", &row->counts[0], &row->counts[1],
               &row->counts[2], &row->counts[3], &row->mq_mv[0], &row->mq_mv[1], &row->mq_mv[2],
               &row->temperature_c, &row->pressure_pa, &row->humidity_percent,
               &row->gas_ohm) != 11) {
      return false;
    }
  } else if (strcmp(what, "end") == 0) {
    step->kind = kEnd;
  } else if (strcmp(what, "grove") == 0 || strcmp(what, "bme") == 0) {
    step->kind = what[0] == 'g' ? kGrove : kBme;
    if (sscanf(rest, "%d", &on) != 1) return false;
    step->on = on != 0;
  } else {
    return false;
  }
  ++step_count;
  return true;
}

static bool read_fault(const char *text) {
  static const char *const kKinds[] = {"reset", "drop", "pause"};
  if (fault_count == kMaxFaults) return false;
  Fault *fault = &faults[fault_count];
  char what[16];
  const int fields =
      sscanf(text, "%15s %u %u %u", what, &fault->line, &fault->byte, &fault->value);
  for (int kind = 0; kind < 3; ++kind) {
    if (strcmp(what, kKinds[kind]) != 0 || fields < (kind == kReset ? 3 : 4)) continue;
    fault->kind = kind;
    ++fault_count;
    return true;
  }
  return false;
}

static bool read_script(FILE *script) {
  char text[256];
  while (fgets(text, sizeof text, script)) {
    const bool timed = text[0] >= '0' && text[0] <= '9';
    if (!(timed ? read_step(text) : read_fault(text))) {
      fprintf(stderr, "board: this line of the script is not understood: %s", text);
      return false;
    }
  }
  return step_count > 0 && steps[step_count - 1].kind == kEnd;
}

// Analog inputs

static void show(const Row *row) {
  shown = *row;
  avr_irq_t *inputs = avr_io_getirq(avr, AVR_IOCTL_ADC_GETIRQ, 0);
  for (int part = 0; part < 3; ++part) avr_raise_irq(inputs + kMqInputs[part], row->mq_mv[part]);
}

// Serial port

static void sleep_ms(unsigned ms) {
  const struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
  nanosleep(&time, NULL);
}

static void send_byte(avr_irq_t *irq, uint32_t value, void *unused) {
  (void)irq, (void)unused;
  for (size_t i = 0; i < fault_count; ++i) {
    const Fault *fault = &faults[i];
    if (fault->line != sent_lines || fault->byte != sent_bytes) continue;
    if (fault->kind == kReset) reset_wanted = true;
    if (fault->kind == kDrop) drops_left = fault->value;
    if (fault->kind == kPause) sleep_ms(fault->value);
  }
  if (reset_wanted) {
    ++sent_lines;  // so that the same fault does not happen again
    sent_bytes = 0;
    return;
  }
  const uint8_t byte = (uint8_t)value;
  if (drops_left > 0) {
    --drops_left;
  } else if (write(terminal, &byte, 1) != 1 && errno != EAGAIN && errno != EIO) {
    perror("board: cannot write to the pseudo-terminal");
    exit(1);
  }
  ++sent_bytes;
  if (byte == '\n') {
    ++sent_lines;
    sent_bytes = 0;
  }
}

static bool open_terminal(const char *link, bool lossy) {
  int slave;
  char name[128];
  struct termios raw;
  if (openpty(&terminal, &slave, name, NULL, NULL) != 0) return false;
  tcgetattr(slave, &raw);
  cfmakeraw(&raw);
  tcsetattr(slave, TCSANOW, &raw);
  unlink(link);
  if (symlink(name, link) != 0) return false;
  // The slave stays open here, so that the terminal outlives its readers.
  if (!lossy) return true;
  // What is sent before the first reader opens it would be lost, more on a busy machine: the power
  // comes with the reader. Without any slave the terminal is hung up.
  close(slave);
  struct pollfd hung_up = {.fd = terminal};
  while (poll(&hung_up, 1, 0) >= 0 && hung_up.revents & POLLHUP) usleep(5000);
  fcntl(terminal, F_SETFL, O_NONBLOCK);
  return open(name, O_RDWR | O_NOCTTY) >= 0;
}

// I2C bus

typedef struct {
  bool selected;
  uint8_t address;
  uint8_t pointer;  // the register or command that was written first
  uint8_t written;  // bytes since the start condition
  uint8_t read;
} Bus;

static Bus bus;

static bool answers(uint8_t address) {
  return (address == kGroveAddress && grove_answers) || (address == kBmeAddress && bme_answers);
}

static void take_byte(uint8_t byte) {
  if (bus.written++ == 0) {
    bus.pointer = byte;
    if (bus.address == kGroveAddress && byte == kGroveWarmUp) grove_warm = true;
  } else if (bus.address == kBmeAddress && bus.pointer == 0x74) {
    measured = shown;
  }
}

static uint8_t byte_of(const void *word) { return ((const uint8_t *)word)[bus.read++ & 3]; }

static uint8_t answer_of_bme(void) {
  switch (bus.pointer) {
    case 0xD0: return 0x61;  // identity
    case 0x2B: return 0x30;  // gas reading valid, heater stable
    case 0x80: return byte_of(&measured.temperature_c);
    case 0x84: return byte_of(&measured.pressure_pa);
    case 0x88: return byte_of(&measured.humidity_percent);
    case 0x8C: return byte_of(&measured.gas_ohm);
  }
  return 0;
}

static uint8_t answer(void) {
  if (bus.address == kBmeAddress) return answer_of_bme();
  if (!grove_warm || bus.pointer > 7) return 0xFF;
  return byte_of(&shown.counts[bus.pointer / 2]);  // commands 1, 3, 5 and 7
}

static void serve_bus(avr_irq_t *irq, uint32_t value, void *unused) {
  (void)irq, (void)unused;
  avr_twi_msg_irq_t message;
  message.u.v = value;
  const unsigned kind = message.u.twi.msg;
  avr_irq_t *reply = avr_io_getirq(avr, AVR_IOCTL_TWI_GETIRQ(0), TWI_IRQ_INPUT);
  if (kind & TWI_COND_STOP) bus.selected = false;
  if (kind & TWI_COND_START) {
    const uint8_t address = message.u.twi.addr >> 1;
    bus.selected = answers(address);
    bus.address = address;
    bus.written = bus.read = 0;
    if (bus.selected) avr_raise_irq(reply, avr_twi_irq_msg(TWI_COND_ACK, message.u.twi.addr, 1));
  }
  if (!bus.selected) return;
  if (kind & TWI_COND_WRITE) {
    avr_raise_irq(reply, avr_twi_irq_msg(TWI_COND_ACK, message.u.twi.addr, 1));
    take_byte(message.u.twi.data);
  }
  if (kind & TWI_COND_READ) {
    avr_raise_irq(reply, avr_twi_irq_msg(TWI_COND_READ, message.u.twi.addr, answer()));
  }
}

// Time

static uint64_t monotonic_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

// Takes all steps that are due; returns whether the end is among them.
static bool take_steps(uint64_t now_ms) {
  static size_t next;
  for (; steps[next].at_ms <= now_ms; ++next) {
    const Step *step = &steps[next];
    switch (step->kind) {
      case kRow: show(&step->row); break;
      case kGrove:
        grove_answers = step->on;
        grove_warm = false;
        break;
      case kBme: bme_answers = step->on; break;
      case kEnd: return true;
    }
  }
  return false;
}

static int run(double speed) {
  const uint64_t started_ms = monotonic_ms();
  for (uint64_t now_ms = 0; !take_steps(now_ms); ++now_ms) {
    while (avr->cycle < (now_ms + 1) * (kHz / 1000) && !reset_wanted) {
      const int state = avr_run(avr);
      if (state == cpu_Done || state == cpu_Crashed) {
        fprintf(stderr, "board: the controller stopped in state %d\n", state);
        return 1;
      }
    }
    if (reset_wanted) {
      reset_wanted = false;
      avr_reset(avr);
      printf("reset %lu\n", now_ms);
      fflush(stdout);
    }
    while (speed > 0 && (double)(monotonic_ms() - started_ms) * speed < (double)now_ms) sleep_ms(1);
  }
  return 0;
}

int main(int count, char **arguments) {
  if (count != 4) {
    fprintf(stderr, "usage: board SKETCH.elf LINK SPEED < SCRIPT\n");
    return 2;
  }
  elf_firmware_t sketch = {0};
  if (!read_script(stdin) || elf_read_firmware(arguments[1], &sketch) != 0) {
    fprintf(stderr, "board: the script or the sketch cannot be read\n");
    return 2;
  }
  avr = avr_make_mcu_by_name("atmega2560");
  if (!avr) return 2;
  avr_init(avr);
  avr_load_firmware(avr, &sketch);
  avr->frequency = kHz;
  avr->vcc = avr->avcc = avr->aref = 5000;

  uint32_t flags = 0;  // neither echoes to standard output nor sleeps while the sketch polls
  avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT),
                          send_byte, NULL);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_TWI_GETIRQ(0), TWI_IRQ_OUTPUT), serve_bus,
                          NULL);
  const double speed = strtod(arguments[3], NULL);
  if (!open_terminal(arguments[2], speed > 0)) {
    perror("board: there is no pseudo-terminal");
    return 1;
  }
  return run(speed);
}
